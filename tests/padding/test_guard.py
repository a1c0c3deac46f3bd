"""`PaddingGuard` beside a LightningModule that knows nothing of this package."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor, nn

from lightning_embed import PaddingGuard, PaddingVectorChanged

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on so small a training


class Plain(L.LightningModule):
    """Predicts the next id with an `nn.Embedding`; `tied` is the classic mistake."""

    def __init__(self, padding_idx: int | None = 1, tied: bool = False) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"words": nn.Embedding(9, 4, padding_idx=padding_idx)})
        self.head = nn.Linear(4, 9)
        if tied:
            self.head.weight = self.encoder["words"].weight
        self.seen_steps: list[int] = []

    @property
    def words(self) -> Tensor:
        return self.encoder["words"].weight

    def training_step(self, ids: Tensor, batch_idx: int) -> Tensor:
        logits = self.head(self.encoder["words"](ids[:, :-1]))
        targets = ids[:, 1:].masked_fill(ids[:, 1:] == 1, -100)
        return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def validation_step(self, ids: Tensor, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.1)


class SGDPlain(Plain):
    """AdamW's decay would shrink what was written before the guard sees it."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class OnGPU(SGDPlain):
    """Says it is on a GPU, which is what decides when the guard reads its evidence."""

    @property
    def device(self) -> torch.device:
        return torch.device("cuda")


class Writes(L.Callback):
    """Spoils one entry of the padding row after the backward pass of one batch."""

    def __init__(self, value: float, batch: int) -> None:
        self.value, self.batch = value, batch

    def on_after_backward(self, trainer: L.Trainer, pl_module: Any) -> None:
        if trainer.fit_loop.epoch_loop.batch_idx == self.batch:
            with torch.no_grad():
                pl_module.words[1, 2] = self.value


def fit(module: L.LightningModule, *callbacks: L.Callback, **settings: Any) -> None:
    """Six batches, each with one padding id."""
    torch.manual_seed(0)
    ids = torch.randint(2, 9, (6, 2, 5))
    ids[:, :, -1] = 1
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, callbacks=list(callbacks), **(quiet | settings)
    )
    loader = torch.utils.data.DataLoader(list(ids), batch_size=None)
    trainer.fit(module, loader, loader)


def test_silent_while_the_row_stays(capsys) -> None:
    module = Plain()
    before = module.words.detach().clone()
    fit(module, PaddingGuard())
    assert (module.words[1].view(torch.int32) == 0).all()
    assert not torch.equal(module.words, before)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("value", "deviation"),
    [(1e-7, "1.0e-07"), (-2.5, "2.5e+00"), (float("nan"), "inf"), (-0.0, "0.0e+00")],
)
@pytest.mark.parametrize("batch", [0, 3, 5])
def test_raises_at_the_very_step(value, deviation, batch) -> None:
    # After the backward pass of batch b comes optimizer step b + 1, which moves what it finds.
    with pytest.raises(PaddingVectorChanged) as raised:
        fit(SGDPlain(), Writes(value, batch), PaddingGuard())
    start = f"encoder.words.weight[1] moved by {deviation} at step {batch + 1}:"
    assert str(raised.value).startswith(start)
    assert raised.value.finding.step == batch + 1


class Acts(L.Callback):
    """Does something to the module after the third batch's backward pass."""

    def __init__(self, act: Any) -> None:
        self.act = act

    @torch.no_grad()
    def on_after_backward(self, trainer: L.Trainer, pl_module: Any) -> None:
        if trainer.fit_loop.epoch_loop.batch_idx == 2:
            self.act(pl_module)


@pytest.mark.parametrize(
    ("cause", "act"),
    [
        ("in_place", lambda module: module.words[1].fill_(0.5)),
        ("reinit", lambda module: nn.init.normal_(module.words)),
        ("loading", lambda module: module.load_state_dict(Plain(None).state_dict())),
        ("non_finite", lambda module: module.words.fill_(float("inf"))),
    ],
)
def test_the_cause_is_named(cause, act) -> None:
    with pytest.raises(PaddingVectorChanged) as raised:
        fit(SGDPlain(), Acts(act), PaddingGuard())
    assert (raised.value.cause, raised.value.finding.step) == (cause, 3)
    assert cause in str(raised.value)


@pytest.mark.parametrize("guard_first", [True, False])
def test_order_of_callbacks_does_not_matter(guard_first) -> None:
    pair = [PaddingGuard(), Writes(1e-7, 2)]
    with pytest.raises(PaddingVectorChanged, match="at step 3:"):
        fit(SGDPlain(), *(pair if guard_first else pair[::-1]))


def test_a_tied_linear_head_is_caught_at_the_first_step() -> None:
    """padding_idx zeroes the lookup's gradient only; softmax still moves the row."""
    with pytest.raises(PaddingVectorChanged) as raised:
        fit(Plain(tied=True), PaddingGuard())
    message = str(raised.value)
    assert "encoder.words.weight[1] moved by 1.0e-01 at step 1" in message  # Adam's first step
    assert raised.value.finding.gradient > 0
    assert raised.value.cause == "tied_head"


def test_warn_says_it_once_for_each_change_and_goes_on(capsys) -> None:
    module = SGDPlain()
    fit(module, Writes(0.5, 1), Writes(0.25, 4), PaddingGuard("warn"))
    lines = [line for line in capsys.readouterr().out.splitlines() if "moved" in line]
    assert len(lines) == 2
    assert lines[0].startswith("warning") and "moved by 5.0e-01 at step 2" in lines[0]
    assert "moved by 2.5e-01 at step 5" in lines[1]
    assert float(module.words[1, 2].detach()) == 0.25


@pytest.mark.parametrize("value", [0.5, float("nan"), -0.0])
def test_repair_writes_the_row_back_and_says_so(value, capsys) -> None:
    module = SGDPlain()
    fit(module, Writes(value, 1), PaddingGuard("repair"))
    assert (module.words[1].view(torch.int32) == 0).all()
    lines = [line for line in capsys.readouterr().out.splitlines() if "moved" in line]
    assert len(lines) == 1 and lines[0].startswith("repaired") and "at step 2" in lines[0]


def test_repair_also_clears_what_would_move_the_row_again(capsys) -> None:
    """Adam's moments of a row that once had a gradient go on moving it without one."""
    module = Plain(tied=True)
    fit(module, PaddingGuard("repair"))
    assert (module.words[1].view(torch.int32) == 0).all()
    (optimizer,) = [module.optimizers(use_pl_optimizer=False)]
    state = optimizer.state[module.words]
    assert (state["exp_avg"][1] == 0).all() and (state["exp_avg"][2:] != 0).any()
    assert capsys.readouterr().out.count("repaired") == 6  # each step moved it anew


@pytest.mark.parametrize(("batch", "step"), [(1, 1), (2, 2), (3, 2)])
def test_accumulation_counts_optimizer_steps(batch, step) -> None:
    """Batches 2 and 3 make step 2, whichever of them did it."""
    with pytest.raises(PaddingVectorChanged, match=f"at step {step}:"):
        fit(SGDPlain(), Writes(1e-7, batch), PaddingGuard(), accumulate_grad_batches=2)


def test_nothing_to_guard_is_said_once(capsys) -> None:
    fit(Plain(padding_idx=None), PaddingGuard())
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("note")] == [
        "note     no embedding with a padding_idx here: nothing to guard"
    ]


def test_a_row_that_began_otherwise_is_kept_as_it_is(capsys) -> None:
    module = SGDPlain()
    with torch.no_grad():
        module.words[1] = 3.0
    fit(module, PaddingGuard())
    assert (module.words[1] == 3).all()
    assert "encoder.words.weight[1] has norm 6, not zero" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_every_stored_number_format(dtype) -> None:
    fit(SGDPlain().to(dtype), PaddingGuard())
    with pytest.raises(PaddingVectorChanged, match="at step 3:"):
        fit(SGDPlain().to(dtype), Writes(-0.0, 2), PaddingGuard())


# On a GPU evidence is gathered at each step and read at intervals.


def stopped_at(module: L.LightningModule, *callbacks: L.Callback, **settings: Any):
    """The error, and the optimizer step training had come to."""
    with pytest.raises(PaddingVectorChanged) as raised:
        fit(module, *callbacks, **settings)
    return raised.value.finding, module.trainer.global_step


def test_gpu_reading_comes_later_and_names_the_first_step() -> None:
    guard = PaddingGuard(every_n_steps=5)
    finding, reached = stopped_at(OnGPU(), Writes(0.5, 1), Writes(7.0, 3), guard)
    assert (finding.step, reached) == (2, 5)
    assert finding.deviation == 0.5  # later, larger drift does not replace the evidence
    assert stopped_at(SGDPlain(), Writes(0.5, 1), PaddingGuard(every_n_steps=5))[1] == 2


def test_gpu_evidence_is_read_before_a_checkpoint_is_kept(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=4)
    guard = PaddingGuard(every_n_steps=1000)
    finding, reached = stopped_at(OnGPU(), Writes(0.5, 1), guard, saver, enable_checkpointing=True)
    assert (finding.step, reached) == (2, 4)
    assert list(tmp_path.iterdir()) == []


def test_gpu_evidence_is_read_before_validation() -> None:
    guard = PaddingGuard(every_n_steps=1000)
    finding, reached = stopped_at(OnGPU(), Writes(0.5, 1), guard, val_check_interval=3)
    assert (finding.step, reached) == (2, 3)


def test_gpu_evidence_is_read_at_the_end() -> None:
    guard = PaddingGuard(every_n_steps=1000)
    finding, reached = stopped_at(OnGPU(), Writes(0.5, 5), guard, limit_val_batches=0)
    assert (finding.step, reached) == (6, 6)


class Records(DummyLogger):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        self.lines.append((step, values))


def test_norm_and_gradient_are_logged_at_intervals() -> None:
    logger = Records()
    fit(Plain(tied=True), PaddingGuard("warn", every_n_steps=3), logger=logger)
    lines = [(s, v) for s, v in logger.lines if "padding/norm" in v]
    assert [step for step, _ in lines] == [3, 6]
    assert all(values["padding/norm"] > 0 for _, values in lines)
    assert all(values["padding/gradient"] > 0 for _, values in lines)


class Shrinks(SGDPlain):
    """An embedding with a `max_norm`, and a padding row that is longer."""

    def __init__(self, max_norm: float = 1.0) -> None:
        super().__init__()
        words = nn.Embedding(9, 4, padding_idx=1, max_norm=max_norm)
        words.weight.data[1] = 1.5  # of norm 3
        self.encoder["words"] = words

    def training_step(self, ids: Tensor, batch_idx: int) -> Tensor:
        return super().training_step(ids.roll(1, dims=1), batch_idx)  # looks up padding too


@pytest.mark.parametrize("on_change", ["error", "warn", "repair"])
@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_a_row_that_max_norm_shrinks_is_told_once(capsys, on_change: str, kind: str) -> None:
    module = Shrinks()
    if kind == "gpu":
        module.__class__ = type("ShrinksOnGPU", (Shrinks, OnGPU), {})
    guard = PaddingGuard(on_change, every_n_steps=2)  # type: ignore[arg-type]
    if on_change == "error":
        finding, _ = stopped_at(module, guard)
        assert (finding.cause, finding.step) == ("max_norm", 1)
        return
    fit(module, guard)
    lines = [x for x in capsys.readouterr().out.splitlines() if "max_norm" in x]
    assert len(lines) == 1 and lines[0].startswith("warning") and "looked up" in lines[0]
    assert float(module.words[1].norm()) == pytest.approx(1.0, abs=1e-5)


def test_max_norm_is_not_blamed_for_another_change() -> None:
    finding, _ = stopped_at(Shrinks(max_norm=100.0), Writes(0.5, 2), PaddingGuard())
    assert (finding.cause, finding.step) == ("in_place", 3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"on_change": "panic"}, "panic"),
        ({"every_n_steps": 0}, "every_n_steps must be at least 1, not 0"),
    ],
)
def test_bad_settings_are_named(arguments, says) -> None:
    with pytest.raises(ValueError, match=says):
        PaddingGuard(**arguments)
