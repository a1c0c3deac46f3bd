"""What is not a number never reaches the weights, and is said with step and documents."""

from typing import Any, ClassVar

import lightning as L
import pytest
import torch
from torch import Tensor
from workshop import Workshop, assert_same_weights, load

from lightning_embed.training import lightning_module
from lightning_embed.training.lightning_module import LanguageModel
from lightning_embed.training.loss_watch import LossWatch


class BreakAt(L.Callback):
    """Makes a parameter's gradient infinite or not a number at step `step` (the first is 1)."""

    def __init__(self, step: int, value: str = "nan") -> None:
        self.step, self.value = step, float(value)

    def on_after_backward(self, trainer: L.Trainer, pl_module: Any) -> None:
        if trainer.global_step == self.step - 1:
            pl_module.network.norm.weight.grad[3] = self.value


def broken(step: int, value: str = "nan") -> tuple[str, ...]:
    name = "--trainer.callbacks"
    return (f"{name}+={__name__}.BreakAt", f"{name}.step={step}", f"{name}.value={value}")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_an_error_stops_before_the_step(workshop: Workshop, optimizer: str, value: str) -> None:
    chosen = ("--model.optimizer", optimizer, "--model.schedule", "constant")
    workshop.fit("four", *chosen, steps=4)
    told = workshop.run(
        "fit", "--name", "run", *chosen, "--trainer.max_steps", "9", *broken(5, value)
    )
    message = told.error_line()
    assert "not finite at step 5" in message and "doc" in message
    assert "--loss_watch.on_non_finite warn" in message
    assert load(workshop.checkpoint("run"))["global_step"] == 4
    assert_same_weights(workshop.checkpoint("run"), workshop.checkpoint("four"))


@pytest.mark.parametrize(
    "absurd",
    [
        ("--model.lr", "1e38", "--model.optimizer", "adamw"),
        ("--model.lr", "1e39"),
        ("--model.lr", "1e38", "--loss_watch.on_non_finite", "warn"),
    ],
)
def test_weights_that_the_optimizer_made_infinite_are_no_matter_of_padding(
    workshop: Workshop, absurd: tuple[str, ...]
) -> None:
    told = workshop.run("fit", "--name", "run", "--trainer.max_steps", "9", *absurd)
    message = told.error_line()
    assert message.startswith("weights are not finite after step 1 (documents: doc"), message
    assert "--model.lr" in message and "--model.betas" in message and "padding" not in message
    assert not list(workshop.root.glob("*/checkpoints/*.ckpt"))


def test_a_padding_row_alone_is_left_to_the_guard(workshop: Workshop) -> None:
    name = "--trainer.callbacks"
    spoil = (f"{name}+={__name__}.SpoilRow", f"{name}.step=2")
    told = workshop.run("fit", "--name", "run", "--trainer.max_steps", "4", *spoil)
    assert "(non_finite;" in told.error_line()


class SpoilRow(L.Callback):
    """Writes NaN into the padding row alone before step `step` ends."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_after_backward(self, trainer: L.Trainer, pl_module: Any) -> None:
        if trainer.global_step == self.step - 1:
            pl_module.network.embedding.weight.data[1] = torch.nan


def test_the_documents_named_are_those_of_the_batch(workshop: Workshop) -> None:
    told = workshop.run("fit", "--name", "run", "--trainer.max_steps", "9", *broken(5))
    named = told.error_line().split("documents: ")[1].split(")")[0]
    assert named.startswith("doc") and ".txt (document " in named


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_warning_skips_the_step_and_goes_on(workshop: Workshop, optimizer: str) -> None:
    warn = ("--loss_watch.on_non_finite", "warn", "--model.optimizer", optimizer)
    told = workshop.fit("run", *warn, *broken(5), steps=9)
    assert "step 5" in told.line("warning") and "skipped" in told.line("warning")
    assert told.line("loss     1 steps skipped").endswith("at step 5")
    state = load(workshop.checkpoint("run"))
    assert all(torch.isfinite(value).all() for value in state["state_dict"].values())
    counters = [m["step"] for m in state["optimizer_states"][0]["state"].values() if "step" in m]
    assert counters and all(int(step) == 8 for step in counters)


def test_healthy_runs_have_nothing_to_say(finished: Any) -> None:
    assert "skipped" not in finished[1].out and "spike" not in finished[1].out


def test_the_running_epochs_loss_survives_an_interruption(workshop: Workshop) -> None:
    epochs = ("--trainer.max_epochs", "2")
    workshop.fit("whole", *epochs)
    name = "--trainer.callbacks"
    stop = (f"{name}+=workshop.SignalAt", f"{name}.step=5")
    assert workshop.run("fit", "--name", "run", *epochs, *stop).status == 143
    workshop.fit("run", *epochs, "--ckpt_path", "last")
    assert epoch_losses(workshop, "run") == epoch_losses(workshop, "whole")


def epoch_losses(shop: Workshop, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(shop.root / name))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("progress/epoch_loss")]
    assert len(found) == 2
    return found


class Watched(L.Callback):
    """Keeps the norm of every step's gradients as they are when the optimizer sees them."""

    norms: ClassVar[list[float]] = []

    def on_before_zero_grad(self, trainer: L.Trainer, pl_module: Any, optimizer: Any) -> None:
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        if gradients:
            self.norms.append(float(torch.nn.utils.get_total_norm(gradients)))


@pytest.mark.parametrize(
    "clip",
    [("0.01",), ("100",), ("0",), ("0.01", "--trainer.gradient_clip_algorithm", "value")],
)
def test_gradients_are_clipped_as_lightning_does_it(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, clip: tuple[str, ...]
) -> None:
    """The norm of `LossWatch` serves clipping too, and gradients within the limit are not touched;
    in all other cases Lightning clips."""
    told = ("--trainer.gradient_clip_val", *clip, f"--trainer.callbacks+={__name__}.Watched")
    found, reused = list[list[float]](), list[Tensor]()

    def counted(parameters: Any, most: float, norm: Tensor) -> None:
        reused.append(norm)
        torch.nn.utils.clip_grads_with_norm_(parameters, most, norm)

    monkeypatch.setattr(lightning_module, "clip_grads_with_norm_", counted)
    for name in ("ours", "lightning"):
        if name == "lightning":
            monkeypatch.delattr(LanguageModel, "configure_gradient_clipping")
        monkeypatch.setattr(Watched, "norms", [])
        workshop.fit(name, *told, steps=3)
        found.append(Watched.norms)
    assert len(found[0]) >= 2 and found[0] == found[1]
    assert len(reused) == (3 if clip == ("0.01",) else 0)
    assert all((norm <= 0.0101) == (clip == ("0.01",)) for norm in found[0])
    assert_same_weights(workshop.checkpoint("ours"), workshop.checkpoint("lightning"))


# -- spikes ----------------------------------------------------------------------------------


def test_a_spike_is_told_from_noise() -> None:
    watch = LossWatch()
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 301):
        noise = float(torch.randn((), generator=generator))
        watch._add(step, 4 - step / 300 + 0.05 * noise + (1.0 if step == 200 else 0.0))
    assert watch.spikes == [200]


def test_what_was_seen_is_kept_in_checkpoints() -> None:
    watch, other = LossWatch(), LossWatch()
    for step in range(60):
        watch._add(step, 2.0 + 0.01 * (step % 3))
    other.load_state_dict(watch.state_dict())
    for each in (watch, other):
        each._add(60, 9.0)
    assert watch.spikes == other.spikes == [60]


@pytest.mark.parametrize("wrong", [{"on_non_finite": "repair"}, {"every_n_steps": 0}])
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LossWatch(**wrong)
