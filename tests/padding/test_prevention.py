"""All pairs of the options that Lightning allows end with a bitwise zero padding row.

Every run has `PaddingGuard(on_change="error")` beside it, so that the row is not only zero in the
end but at each optimizer step. What Lightning refuses is in one table, `REFUSED`.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from itertools import combinations, product
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from padded_training import (
    AVERAGING,
    EPOCHS,
    OPTIMIZERS,
    VOCABULARY,
    Options,
    Small,
    batches,
    is_plus_zero,
    nonzero_rows_in_checkpoint,
    trainer_for,
)
from padding_ranks import NAMES
from torch import Tensor, nn
from torch.optim import SGD, AdamW

from lightning_embed import LanguageModel, PaddingVectorChanged, TokenEmbedding
from lightning_embed.padding.embedding import clear_padding_moments, protect_padding_row

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on so small a training

AXES: dict[str, tuple[Any, ...]] = {
    "optimizer": tuple(OPTIMIZERS),
    "precision": ("32-true", "bf16-mixed", "bf16-true"),  # 16-mixed needs a GPU, see below
    "averaging": tuple(AVERAGING),
    "accumulation": (1, 2),
    "clipping": (None, 1.0),
    "weight_decay": (0.0, 0.1),
    "head": ("tied", "foreign"),
}


def pairs_of(options: Options) -> set[tuple[tuple[str, Any], ...]]:
    """Every two axes with the values they have here."""
    return set(combinations(options._asdict().items(), 2))


def covering(axes: dict[str, tuple[Any, ...]]) -> list[Options]:
    """Few runs in which every pair of values of two axes occurs; greedy, always the same."""
    runs = [Options(**dict(zip(axes, values, strict=True))) for values in product(*axes.values())]
    missing = set().union(*map(pairs_of, runs))
    chosen = []
    while missing:
        best = max(runs, key=lambda run: len(pairs_of(run) & missing))
        missing -= pairs_of(best)
        chosen.append(best)
    return chosen


PAIRS = covering(AXES)
# Compiled: each value of each other axis in some run. Inductor takes a minute for each; the same
# graphs, forward and backward, run one by one serve every day.
ROTATED = [
    Options(**{axis: values[number % len(values)] for axis, values in AXES.items()})
    for number in range(len(OPTIMIZERS))
]
COMPILED = [
    pytest.param(ROTATED[1]._replace(compile="aot_eager"), id="aot_eager"),
    *(
        pytest.param(run._replace(compile="inductor"), id=run.optimizer, marks=pytest.mark.slow)
        for run in ROTATED
    ),
]


def described(options: Options) -> str:
    return "-".join(str(value) for value in options)


def assert_zero_everywhere(trainer: L.Trainer, module: Small, path: Path) -> None:
    """In the module, the optimizer's moments, the averages, and in what is written."""
    assert trainer.global_step >= EPOCHS
    assert is_plus_zero(module.weight[1])
    assert (module.weight[2:] != 0).any(dim=1).all()  # the others are there
    trainer.save_checkpoint(path)
    assert nonzero_rows_in_checkpoint(path) == []


def train(options: Options, path: Path) -> None:
    torch.manual_seed(0)
    module = Small(options)
    before = module.weight.detach().clone()
    trainer = trainer_for(options)
    trainer.fit(module, batches(), batches(1))
    assert not torch.equal(module.weight, before)
    assert_zero_everywhere(trainer, module, path)


def test_the_runs_cover_all_pairs_of_values() -> None:
    """Counted apart from `covering`."""
    for (one, values), (other, others) in combinations(AXES.items(), 2):
        for pair in product(values, others):
            assert any((getattr(run, one), getattr(run, other)) == pair for run in PAIRS), pair
    for axis, values in AXES.items():
        assert {getattr(run, axis) for run in ROTATED} == set(values), axis


@pytest.mark.parametrize("options", PAIRS, ids=described)
def test_the_row_stays_zero(options: Options, tmp_path: Path) -> None:
    train(options, tmp_path / "end.ckpt")


@pytest.mark.parametrize("options", COMPILED)
def test_the_row_stays_zero_when_compiled(options: Options, tmp_path: Path) -> None:
    train(options, tmp_path / "end.ckpt")


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("head", AXES["head"])
def test_the_row_stays_zero_in_16_mixed(optimizer: str, head: str, tmp_path: Path) -> None:
    """On a CPU Lightning quietly makes this bf16-mixed."""
    options = Options(optimizer, "16-mixed", "none", 2, 1.0, 0.1, head)
    module = Small(options)
    trainer = trainer_for(options, accelerator="gpu")
    trainer.fit(module, batches(), batches(1))
    assert_zero_everywhere(trainer, module, tmp_path / "end.ckpt")


@pytest.mark.parametrize("head", AXES["head"])
def test_without_prevention_the_same_training_moves_the_row(head: str) -> None:
    """Else everything above would pass on a training that cannot move it."""
    module = Small(Options(head="foreign"))
    if head == "tied":  # a row that is not zero, and decay
        module = Small(Options(weight_decay=0.1))
        with torch.no_grad():
            module.weight[1] = 0.5
    else:
        module.weight._post_accumulate_grad_hooks.clear()
    with pytest.raises(PaddingVectorChanged, match="at step 1:"):
        trainer_for(module.options).fit(module, batches(), batches(1))


# What Lightning refuses ------------------------------------------------------------------------
# Beside the table: EMAWeightAveraging with FSDP2 (`padding_ranks.py`), 16-mixed with
# ModelParallelStrategy (below), and 16-mixed on a CPU, which becomes bf16-mixed.


class Fused(Small):
    def configure_optimizers(self) -> AdamW:
        return AdamW(self.parameters(), fused=True)


class TwoOptimizers(Small):
    def configure_optimizers(self) -> Any:
        blocks = list(self.network.blocks.parameters())
        others = [*self.network.embedding.parameters(), *self.network.norm.parameters()]
        return SGD(blocks, lr=0.1), AdamW(others)


class Manual(TwoOptimizers):
    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.automatic_optimization = False


REFUSED = {
    "fused AdamW + bf16-mixed + clipping": (
        Fused,
        Options(precision="bf16-mixed", clipping=1.0),
        RuntimeError,
        "does not allow for gradient clipping",
    ),
    "two optimizers (Muon and AdamW apart) + automatic optimization": (
        TwoOptimizers,
        Options(),
        RuntimeError,
        "multiple optimizers is only supported with manual optimization",
    ),
    "clipping + manual optimization": (
        Manual,
        Options(clipping=1.0),
        MisconfigurationException,
        "clipping is not supported for manual optimization",
    ),
    "accumulation + manual optimization": (
        Manual,
        Options(accumulation=2),
        MisconfigurationException,
        "accumulation is not supported for manual optimization",
    ),
    "two optimizers + stochastic weight averaging": (
        Manual,
        Options(averaging="swa"),
        MisconfigurationException,
        "SWA currently works with 1 `optimizer`",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_lightning_refuses(name: str) -> None:
    """Each is why the covering runs do without it; when one is allowed, it belongs there."""
    kind, options, error, says = REFUSED[name]
    with pytest.raises(error, match=says):
        trainer_for(options).fit(kind(options), batches(), batches(1))


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (Options(precision="bf16-mixed"), Fused),
        (Options(clipping=1.0), Fused),
        (Options(precision="bf16-true", clipping=1.0), Fused),
    ],
)
def test_two_of_the_three_are_allowed(options: Options, kind: type[Small], tmp_path: Path) -> None:
    module = kind(options)
    trainer = trainer_for(options)
    trainer.fit(module, batches(), batches(1))
    assert_zero_everywhere(trainer, module, tmp_path / "end.ckpt")


@pytest.mark.gpu
def test_fsdp2_refuses_16_mixed() -> None:
    with pytest.raises(ValueError, match=r"does not support .*16-mixed"):
        trainer_for(
            Options(precision="16-mixed"), strategy=ModelParallelStrategy(), accelerator="gpu"
        )


def test_16_mixed_on_a_cpu_is_bf16_mixed() -> None:
    assert trainer_for(Options(precision="16-mixed")).precision == "bf16-mixed"


# Resuming, loading, resizing -------------------------------------------------------------------


@pytest.mark.parametrize("averaging", ["none", "ema"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resuming_keeps_it(optimizer: str, averaging: str, tmp_path: Path) -> None:
    options = Options(optimizer, averaging=averaging, weight_decay=0.1)
    first = trainer_for(options, max_epochs=1)
    first.fit(Small(options), batches(), batches(1))
    first.save_checkpoint(tmp_path / "one.ckpt")
    module, second = Small(options), trainer_for(options)
    second.fit(module, batches(), batches(1), ckpt_path=tmp_path / "one.ckpt")
    assert second.global_step > first.global_step
    assert_zero_everywhere(second, module, tmp_path / "two.ckpt")


def spoiled(path: Path, value: float, moment: float) -> None:
    """Writes into the padding row of a checkpoint's weight and of its optimizer's moments."""
    checkpoint = torch.load(path, weights_only=True)
    (name,) = (n for n in checkpoint["state_dict"] if n.endswith("embedding.weight"))
    checkpoint["state_dict"][name][1] = value
    shape = checkpoint["state_dict"][name].shape
    for state in checkpoint["optimizer_states"][0]["state"].values():
        for kept in state.values():
            if kept.shape == shape:
                kept[1] = moment
    torch.save(checkpoint, path)


@pytest.mark.parametrize("value", [0.5, float("nan"), -0.0])
def test_resuming_from_a_row_that_is_not_zero_repairs_it(value: float, tmp_path: Path) -> None:
    first = trainer_for(Options("sgd"), max_epochs=1)
    first.fit(Small(Options("sgd")), batches(), batches(1))
    first.save_checkpoint(path := tmp_path / "one.ckpt")
    spoiled(path, value, moment=0.0)
    module, second = Small(Options("sgd")), trainer_for(Options("sgd"))
    second.fit(module, batches(), batches(1), ckpt_path=path)
    assert_zero_everywhere(second, module, tmp_path / "two.ckpt")


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_stale_moment_in_a_checkpoint_is_cleared_on_loading(
    optimizer: str, tmp_path: Path
) -> None:
    """Without that the guard would stop the second run at its first step."""

    class Batched(LanguageModel):
        """Ids alone, as here there is no data module."""

        def training_step(self, ids: Tensor, batch_idx: int) -> Tensor:  # type: ignore[override]
            targets = ids[:, 1:].masked_fill(ids[:, 1:] == 1, -100)
            return self.network.loss(ids[:, :-1], targets) / 10

        def validation_step(self, ids: Tensor, batch_idx: int) -> None:  # type: ignore[override]
            pass

    def build() -> Batched:
        sizes: dict[str, Any] = {"d_model": 8, "n_layers": 1, "n_heads": 1, "d_ff": 12}
        return Batched(VOCABULARY, **sizes, optimizer=optimizer, compile=False)

    first = trainer_for(Options(), max_epochs=1)
    first.fit(build(), batches(), batches(1))
    first.save_checkpoint(path := tmp_path / "one.ckpt")
    spoiled(path, 0.5, moment=0.1)
    assert len(nonzero_rows_in_checkpoint(path)) == 3  # the weight and Adam's two moments
    module, second = build(), trainer_for(Options())
    second.fit(module, batches(), batches(1), ckpt_path=path)
    assert second.global_step == 3 * first.global_step
    assert is_plus_zero(module.network.embedding.weight[1])
    second.save_checkpoint(tmp_path / "two.ckpt")
    assert nonzero_rows_in_checkpoint(tmp_path / "two.ckpt") == []


@pytest.mark.parametrize(
    ("value", "norm"), [(0.5, "1"), (float("nan"), "nan"), (float("inf"), "inf")]
)
def test_loading_a_row_that_is_not_zero_warns_with_its_norm(value: float, norm: str) -> None:
    model = nn.ModuleDict({"words": TokenEmbedding(10, 4)})
    state = {"words.weight": torch.full((10, 4), value)}
    with pytest.warns(UserWarning, match=f"padding row of words.weight had norm {norm} "):
        model.load_state_dict(state)
    assert is_plus_zero(model["words"].weight[1])
    others = model["words"].weight.detach()[2:]
    assert torch.equal(others.nan_to_num(7.0), state["words.weight"][2:].nan_to_num(7.0))


def test_loading_a_zero_row_says_nothing(recwarn: pytest.WarningsRecorder) -> None:
    embedding = TokenEmbedding(10, 4)
    embedding.load_state_dict(TokenEmbedding(10, 4).state_dict())
    assert not recwarn.list


@pytest.mark.parametrize("size", [2, 7, 10, 25])
@pytest.mark.parametrize("init", ["normal", "torch"])
def test_resize_keeps_the_other_rows(size: int, init: Any) -> None:
    torch.manual_seed(0)
    embedding = TokenEmbedding(10, 4, init=init)
    with torch.no_grad():
        embedding.weight[1] = float("nan")  # whatever it holds
    old = embedding.weight.detach().clone()
    embedding.resize(size)
    weight = embedding.weight.detach()
    assert weight.shape == (size, 4) and embedding.num_embeddings == size
    assert isinstance(embedding.weight, nn.Parameter) and embedding.weight.requires_grad
    assert is_plus_zero(weight[1])
    kept = [i for i in range(min(size, 10)) if i != 1]
    assert torch.equal(weight[kept], old[kept])
    assert (weight[10:] != 0).any(dim=1).all()
    assert embedding(torch.tensor([[0, size - 1]])).shape == (1, 2, 4)
    assert embedding.logits(torch.ones(4)).shape == (size,)


def test_resize_keeps_dtype_and_frozenness() -> None:
    embedding = TokenEmbedding(10, 4, dtype=torch.bfloat16).requires_grad_(False)
    embedding.resize(12)
    assert embedding.weight.dtype == torch.bfloat16 and not embedding.weight.requires_grad


@pytest.mark.parametrize(("padding_idx", "size"), [(1, 1), (1, 0), (-1, 9), (None, 0), (1, -3)])
def test_resize_refuses_to_cut_the_padding_row_off(padding_idx: int | None, size: int) -> None:
    embedding = TokenEmbedding(10, 4, padding_idx)
    with pytest.raises(ValueError, match=f"vocabulary of {size} has no row for padding_idx"):
        embedding.resize(size)
    assert embedding.weight.shape == (10, 4)


# Somebody else's head, and moments ---------------------------------------------------------------


def one_step(weight: nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
    hidden = F.embedding(torch.tensor([3, 5]), weight, padding_idx=1)
    F.cross_entropy(F.linear(hidden, weight), torch.tensor([5, 2])).backward()
    optimizer.step()
    optimizer.zero_grad()


def test_protect_padding_row_until_its_handle_is_removed() -> None:
    torch.manual_seed(0)
    weight = TokenEmbedding(10, 4).weight
    handle = protect_padding_row(weight)
    optimizer = AdamW([weight], lr=0.1)
    for _ in range(3):
        one_step(weight, optimizer)
    assert is_plus_zero(weight[1])
    assert is_plus_zero(optimizer.state[weight]["exp_avg"][1])
    handle.remove()
    one_step(weight, optimizer)
    assert not is_plus_zero(weight[1])


@pytest.mark.parametrize("padding_idx", [0, 1, 9])
def test_protect_padding_row_keeps_the_other_gradients(padding_idx: int) -> None:
    free, held = (nn.Parameter(torch.linspace(-1, 1, 40).view(10, 4)) for _ in range(2))
    protect_padding_row(held, padding_idx)
    for weight in (free, held):
        for _ in range(2):  # gradients that accumulate
            F.cross_entropy(F.linear(weight[3:5], weight), torch.tensor([5, 2])).backward()
    others = torch.arange(10) != padding_idx
    assert torch.equal(held.grad[others], free.grad[others])
    assert is_plus_zero(held.grad[padding_idx]) and not is_plus_zero(free.grad[padding_idx])


@pytest.mark.parametrize("build", [OPTIMIZERS["adamw"], OPTIMIZERS["sgd"], OPTIMIZERS["adagrad"]])
def test_clear_padding_moments_stops_a_stale_moment(build: Any) -> None:
    """Frozen after steps in which a head trained the row, then zeroed: a moment moves it again."""
    torch.manual_seed(0)
    embedding = TokenEmbedding(10, 4)
    optimizer = build(embedding, 0.0)
    for _ in range(2):
        one_step(embedding.weight, optimizer)
    assert not is_plus_zero(embedding.weight[1])
    kept = {k: v.clone() for k, v in optimizer.state[embedding.weight].items()}
    embedding.zero_padding_()
    clear_padding_moments(optimizer, embedding.weight)
    for name, moment in optimizer.state[embedding.weight].items():
        if moment.shape == embedding.weight.shape:
            assert is_plus_zero(moment[1])
            assert torch.equal(moment[2:], kept[name][2:])
        else:
            assert torch.equal(moment, kept[name])  # the number of steps
    protect_padding_row(embedding.weight)
    one_step(embedding.weight, optimizer)
    assert is_plus_zero(embedding.weight[1])


def test_clear_padding_moments_before_the_first_step_does_nothing() -> None:
    weight = TokenEmbedding(10, 4).weight
    optimizer = AdamW([weight])
    clear_padding_moments(optimizer, weight)
    assert not optimizer.state


# Two processes -----------------------------------------------------------------------------------


def as_torchrun_does(script: Path, folder: Path, seconds: float) -> Iterable[str]:
    """Two processes of one script; what each wrote."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    ranks = []
    for rank in ("0", "1"):
        place = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": "0", "WORLD_SIZE": "2"}
        place |= {"LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        place |= {"TORCHELASTIC_RUN_ID": "tests", "OMP_NUM_THREADS": "1"}
        place |= {"PYTHONPATH": str(script.parent.parent)}
        ranks.append(
            subprocess.Popen(
                [sys.executable, str(script), str(folder)],
                env=os.environ | place,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        return [process.communicate(timeout=seconds)[0] for process in ranks]
    finally:
        for process in ranks:
            process.kill()


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """What each rank found, by check; all checks share one pair of processes."""
    folder = tmp_path_factory.mktemp("ranks")
    said = as_torchrun_does(Path(__file__).parents[1] / "padding_ranks.py", folder, 150)
    files = [folder / f"{rank}.json" for rank in range(2)]
    assert all(file.exists() for file in files), "\n".join(said)
    return [json.loads(file.read_text()) for file in files]


@pytest.mark.parametrize("check", NAMES)
def test_two_processes(check: str, verdicts: list[dict[str, str]]) -> None:
    for rank, found in enumerate(verdicts):
        assert found.get(check, "not reached") == "ok", f"rank {rank}"
