"""`RowWatch`: what moved a row is told from what else moved, and looking waits for no device."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_embed.padding.evidence import RowWatch
from lightning_embed.padding.padded import PaddedEmbedding

V, D = 12, 4


@pytest.mark.parametrize("size", [2, 3, 4, 6, 12])
@pytest.mark.parametrize("padding_idx", [0, 1, -1])
def test_the_cause_does_not_depend_on_where_the_row_is(size: int, padding_idx: int) -> None:
    """Whether other rows moved as well is seen from a few beside it, however few there are."""
    for cause, rows in (("in_place", [padding_idx]), ("reinit", list(range(size)))):
        module = nn.Embedding(size, D, padding_idx=padding_idx)
        watch = RowWatch(PaddedEmbedding("words.weight", module, module.padding_idx))
        module.weight.data[rows] += 1
        watch.look_outside(1, averaging=False)
        found = watch.finding(watch.evidence().tolist())
        assert found is not None and found.cause == cause


def test_a_weight_moved_to_other_memory_is_looked_at_there() -> None:
    module = nn.Embedding(V, D, padding_idx=1)
    watch = RowWatch(PaddedEmbedding("words.weight", module, 1))
    watch.look_outside(1, averaging=False)  # has seen where the row is
    module.weight.data = module.weight.data.clone()
    watch.look_outside(2, averaging=False)
    assert watch.is_still()
    module.weight.data[1] += 1
    watch.look_outside(3, averaging=False)
    assert not watch.is_still()
    watch.accept()
    watch.look_outside(4, averaging=False)
    assert watch.is_still()  # compared with what was accepted


@pytest.mark.parametrize("optimizer", [Adam, AdamW])
def test_decay_is_not_the_cause_where_there_is_nothing_to_shrink(
    optimizer: type[Optimizer],
) -> None:
    for start, cause in ((0.0, "stale_moment"), (0.5, "weight_decay")):
        module = nn.Embedding(V, D, padding_idx=1)
        module.weight.data[1] = start
        watch = RowWatch(PaddedEmbedding("words.weight", module, 1))
        made = optimizer(module.parameters(), lr=0.1, weight_decay=0.1)
        module.weight.grad = torch.zeros_like(module.weight)
        if not start:
            made.step()
            made.state[module.weight]["exp_avg"][1] = 0.1
        watch.look_before_step()
        made.step()
        watch.look_after_step(1, made)
        found = watch.finding(watch.evidence().tolist())
        assert found is not None and found.cause == cause


# Waiting for the device --------------------------------------------------------------------------


class OneDevice(TorchDispatchMode):
    """Refuses whatever moves numbers between devices: beside the tensors of the watch, which are on
    `meta`, none may come in. Reading a number (`.item()`, `bool()`, `.tolist()`, `nonzero()`) is
    impossible on meta, as there is none: it raises by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in (*args, *(kwargs or {}).values(), out):
            if isinstance(value, Tensor):
                assert value.is_meta, f"{func} touches {value.device}"
        self.calls += 1
        return out


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
@pytest.mark.parametrize("optimizer", [Adam, SGD])
def test_looking_never_waits_for_the_device(kind: Any, optimizer: type[Optimizer]) -> None:
    """What a GPU run does at each step, on tensors that have no numbers to wait for."""
    module = kind(V, D, padding_idx=1, device="meta")
    watch = RowWatch(PaddedEmbedding("words.weight", module, 1))
    made = optimizer(module.parameters(), lr=0.1, weight_decay=0.1)
    module.weight.grad = torch.zeros_like(module.weight)
    made.step()  # moments are there from now on
    with OneDevice() as mode:
        watch.look_outside(1, averaging=True)
        watch.look_before_step()
        watch.look_after_step(2, made)
        watch.look_at_saved(module.weight.detach(), 2, averaging=True)
        evidence = watch.evidence()
    assert mode.calls > 20
    with pytest.raises((RuntimeError, NotImplementedError)):
        evidence.tolist()  # this is what waits, and meta tells


def test_that_a_sparse_gradient_does_not_wait_either() -> None:
    module = nn.Embedding(V, D, padding_idx=1, sparse=True, device="meta")
    index = torch.empty(1, 3, dtype=torch.long, device="meta")
    values = torch.empty(3, D, device="meta")
    module.weight.grad = torch.sparse_coo_tensor(index, values, (V, D), check_invariants=False)
    row = PaddedEmbedding("words.weight", module, 1).gradient_row()
    assert row is not None and row.shape == (D,) and row.is_meta


@pytest.mark.gpu
def test_looking_on_a_gpu_never_waits() -> None:
    module = nn.Embedding(V, D, padding_idx=1, device="cuda")
    watch = RowWatch(PaddedEmbedding("words.weight", module, 1))
    made = Adam(module.parameters(), lr=0.1, weight_decay=0.1, fused=True)
    module.weight.grad = torch.zeros_like(module.weight)
    made.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(3):
            watch.look_outside(step, averaging=True)
            watch.look_before_step()
            watch.look_after_step(step + 1, made)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert watch.finding(watch.evidence().tolist()) is None
