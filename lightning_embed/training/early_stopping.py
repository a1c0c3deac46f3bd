"""Why a run ended early, and an early stopping that a resumed run can relax.

Lightning's own takes its patience from the checkpoint whatever was asked for, and ends a run that
goes on at its next validation.
"""

from typing import Any

import lightning as L
from lightning.pytorch import callbacks
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason


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
