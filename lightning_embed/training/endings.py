"""Why a run ended, and what lets it go on: limits to raise, an early stopping to relax.

Lightning's own takes its patience from the checkpoint whatever was asked for, and ends a run that
goes on at its next validation.
"""

from typing import Any

import lightning as L
from lightning.pytorch import callbacks
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from lightning_embed.training.run_length import planned_steps


class ResumableEarlyStopping(callbacks.EarlyStopping):
    """Ends a run whose validation loss falls no longer; see Lightning's for the arguments."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        asked = self.patience
        super().load_state_dict(state_dict)
        self.patience = asked
        self.stopping_reason = EarlyStoppingReason.NOT_STOPPED  # of the run before

    def flags_to_go_on(self) -> tuple[str, ...]:
        """What to add to a command that goes on where this has ended a run."""
        if self.stopping_reason is EarlyStoppingReason.PATIENCE_EXHAUSTED:
            return ("--early_stopping.patience", str(self.wait_count + max(1, self.patience)))
        if self.stopping_reason is EarlyStoppingReason.STOPPING_THRESHOLD:
            return ("--early_stopping.stopping_threshold", "null")
        if self.stopping_reason is EarlyStoppingReason.DIVERGENCE_THRESHOLD:
            return ("--early_stopping.divergence_threshold", "null")
        return ()


def why_stopped(trainer: L.Trainer) -> str:
    """Why a run ends before its planned steps, in words."""
    if is_time_over(trainer):
        return "--trainer.max_time is over"
    early = trainer.early_stopping_callback
    if early is None or early.stopping_reason is EarlyStoppingReason.NOT_STOPPED:
        return "a callback asked for it"
    if early.stopping_reason is EarlyStoppingReason.PATIENCE_EXHAUSTED:
        return "validation loss falls no longer"
    return str(early.stopping_reason_message)


def is_time_over(trainer: L.Trainer) -> bool:
    timers = [c for c in trainer.callbacks if isinstance(c, callbacks.Timer)]  # type: ignore[attr-defined]
    left = [timer.time_remaining() for timer in timers]
    return any(seconds is not None and seconds <= 0 for seconds in left)


def time_spent(checkpoint: dict[str, Any]) -> float:
    """Seconds of training before a checkpoint that the limit of `--trainer.max_time` includes."""
    timer = checkpoint.get("callbacks", {}).get("Timer", {})
    return float(timer.get("time_elapsed", {}).get("train", 0.0))


def flags_to_go_on(trainer: L.Trainer, given: Any) -> tuple[str, ...]:
    """What to add to a command so that a run which has ended trains on.

    Args:
        trainer: of the run.
        given: the trainer's settings as they were asked for.
    """
    steps = trainer.global_step
    if steps < planned_steps(trainer):
        if is_time_over(trainer):
            return ("--trainer.max_time", "null")
        early = trainer.early_stopping_callback
        return early.flags_to_go_on() if isinstance(early, ResumableEarlyStopping) else ()
    longer: dict[str, int] = {}
    ends: list[int] = []  # where each limit ends the run then
    if given.max_epochs and given.max_epochs > 0:
        whole = given.max_epochs * trainer.datamodule.steps_per_epoch  # type: ignore[attr-defined]
        if steps >= whole:
            longer["--trainer.max_epochs"], whole = 2 * given.max_epochs, 2 * whole
        ends.append(whole)
    if not longer or 0 < given.max_steps <= steps:
        longer["--trainer.max_steps"] = 2 * steps
        ends.append(2 * steps)
    longer["--model.schedule_steps"] = min(ends)
    return tuple(str(word) for pair in longer.items() for word in pair)
