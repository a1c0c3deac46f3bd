"""The estimate of a step's memory beside what torch really keeps, and the choice of a split."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_embed.data.plan import BatchSettings
from lightning_embed.model.decoder import DecoderLM
from lightning_embed.training import memory
from lightning_embed.training.memory import (
    TrainingMemory,
    largest,
    next_split,
    split_that_fits,
    training_memory,
)
from lightning_embed.training.optim import MuonAdamW, parameter_groups

VOCABULARY = 300


def kept_for_backward(model: DecoderLM, rows: int, width: int, precision: str) -> int:
    """Bytes of all tensors that the blocks and the final norm keep, parameters aside."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    mixed = torch.autocast(
        "cpu", torch.bfloat16, enabled=precision == "bf16-mixed", cache_enabled=False
    )
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), mixed:
        hidden = model.hidden(torch.randint(4, VOCABULARY, (rows, width)))
    del hidden
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "64-true"])
@pytest.mark.parametrize(
    ("rows", "width", "settings"),
    [
        (6, 48, {"d_model": 64, "n_heads": 4}),
        (4, 128, {"d_model": 64, "n_heads": 8, "n_kv_heads": 2, "dropout": 0.1}),
        (4, 64, {"d_model": 128, "n_heads": 2, "qk_norm": False, "d_ff": 96}),
        (2, 600, {"d_model": 64, "n_heads": 2, "n_kv_heads": 1}),
    ],
)
def test_activations_are_those_that_torch_keeps(
    monkeypatch: pytest.MonkeyPatch,
    rows: int,
    width: int,
    settings: dict[str, Any],
    precision: str,
) -> None:
    monkeypatch.setattr(memory, "HEAP", 1.0)
    monkeypatch.setattr(memory, "HEAP_STEP", 0)
    settings = {"n_layers": 4, **settings}
    torch.manual_seed(0)
    model = DecoderLM(VOCABULARY, **settings)
    if precision.endswith("true"):
        model.to({"32": torch.float32, "bf16": torch.bfloat16, "64": torch.float64}[precision[:-5]])
    found = training_memory(settings, VOCABULARY, rows, width, precision=precision).activations
    true = kept_for_backward(model, rows, width, precision)
    assert 0.97 < found / true < 1.15


def test_checkpointing_keeps_one_block_and_the_others_inputs() -> None:
    def activations(layers: int, checkpoint: bool) -> float:
        settings = {"n_layers": layers, "checkpoint_activations": checkpoint}
        return training_memory(settings, 4096, 8, 256).activations

    assert activations(8, True) - activations(4, True) == pytest.approx(
        4 * 8 * 256 * 256 * 4 * memory.HEAP
    )
    assert activations(4, False) < 1.05 * activations(1, True) * 4
    assert activations(1, False) < activations(1, True) < 1.1 * activations(1, False)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("tied", [True, False])
def test_parameters_and_moments(optimizer: Any, tied: bool) -> None:
    settings = {"d_model": 32, "n_layers": 3, "n_heads": 2, "tied": tied}
    model = DecoderLM(VOCABULARY, **settings)
    stepper = MuonAdamW(
        parameter_groups(
            model, optimizer=optimizer, lr=1e-3, muon_lr=0.01, weight_decay=0.1, betas=(0.9, 0.95)
        )
    )
    model.loss(*torch.randint(4, VOCABULARY, (2, 2, 8))).backward()
    stepper.step()
    moments = [x for state in stepper.state.values() for x in state.values() if x.ndim]
    found = training_memory(settings, VOCABULARY, 2, 8, optimizer=optimizer)
    assert found.parameters == sum(p.numel() * 4 for p in model.parameters())
    assert found.gradients == found.parameters
    assert found.moments == sum(x.numel() * 4 for x in moments)


def test_several_processes_share_the_state_or_copy_gradients() -> None:
    alone, ddp, fsdp = (
        training_memory({}, 4096, 2, 64, **more)
        for more in ({}, {"processes": 4}, {"processes": 4, "sharded": True})
    )
    assert ddp.gradients == 2 * alone.gradients and ddp.moments == alone.moments
    assert fsdp.parameters == alone.parameters / 4 and fsdp.moments == alone.moments / 4
    assert fsdp.activations == alone.activations == ddp.activations


def test_the_first_step_of_a_compiled_run_counts_as_it_is_eager() -> None:
    """Where activations are most of it, that step takes most."""
    eager, compiled = (training_memory({}, 4096, 64, 256, compiled=x) for x in (False, True))
    assert compiled.activations == eager.activations and compiled.moments == 0
    eager, compiled = (training_memory({}, 65536, 1, 8, compiled=x) for x in (False, True))
    assert compiled.activations < eager.activations and compiled.moments == eager.moments > 0


def need(rows: int, width: int) -> TrainingMemory:
    return TrainingMemory(100, 0, 0, rows * width + width * width, 0, 0)


def test_the_largest_micro_batch_is_looked_for_among_all_widths() -> None:
    batch = BatchSettings(1000, (8, 100))
    assert largest(need, batch, 1).total == 100 + 10 * 100 + 100 * 100
    flat = BatchSettings(1000, (90, 100))
    assert largest(lambda rows, width: TrainingMemory(0, 0, 0, rows, 0, 0), flat, 1).total == 11
    packed = BatchSettings(1000, (90, 100), layout="packed")
    assert largest(lambda rows, width: TrainingMemory(0, 0, 0, rows, 0, 0), packed, 1).total == 10


def test_splits_double_until_each_row_is_one() -> None:
    batch, found = BatchSettings(1000, (8, 100)), [1]
    while (more := next_split(found[-1], batch, processes=1)) is not None:
        found.append(more)
    assert found == [1, 2, 4, 8, 10]
    assert next_split(3, batch, processes=2) == 5
    assert next_split(5, batch, processes=2) is None


@pytest.mark.parametrize(
    ("free", "accumulate", "found"),
    [
        (11_100, 1, 1),
        (11_099, 1, 2),
        (10_600, 1, 2),
        (10_400, 1, 4),
        (10_400, 3, 6),
        (11_100, 8, 8),
        (10_200, 1, 10),
        (10_199, 1, None),
    ],
)
def test_the_first_split_that_fits(free: float, accumulate: int, found: int | None) -> None:
    batch = BatchSettings(1000, (100,))
    assert split_that_fits(need, free, batch, accumulate, processes=1) == found
