"""Figures of a run: one call hands them to every logger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing Lightning takes seconds
    import lightning as L


def log(trainer: L.Trainer, values: Mapping[str, float], step: int | None = None) -> None:
    """Write figures, by tag (`"val/loss"`), to all of the trainer's loggers.

    Args:
        trainer: whose loggers; without one nothing happens.
        values: plain numbers; a tensor on a GPU would make it wait.
        step: optimizer steps done; unset, the trainer's.
    """
    for logger in trainer.loggers:
        logger.log_metrics(dict(values), trainer.global_step if step is None else step)
