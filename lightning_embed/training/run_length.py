"""`RunLength`: how long to train when nobody said, in optimizer steps; the end is validated.

Knows: a rule of thumb; that limits mean optimizer steps. Leaves to others: stopping early
(Lightning's EarlyStopping).
"""

import math
from typing import Any

import lightning as L

from lightning_embed.console import say

TOKENS_WORTH_SEEING = 4_000_000  # a small text is read several times, up to MOST_PASSES
MOST_PASSES = 10.0


class RunLength(L.Callback):
    """Sets `max_steps` from the amount of text unless a limit was given, and has the last step
    validated wherever it falls, as the weights a schedule ends with are mostly the best.

    Lightning counts `val_check_interval` and `limit_train_batches` in a process' micro-batches;
    here they count optimizer steps, so that they mean the same with any accumulation.

    Args:
        given: the user gave `max_steps` or `max_epochs`.
    """

    def __init__(self, given: bool) -> None:
        self.given = given

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        self._count_in_steps(trainer, data)
        if self.given:
            return
        targets = max(1, data.prepared.train.n_targets)
        passes = min(MOST_PASSES, max(1.0, TOKENS_WORTH_SEEING / targets))
        steps = max(1, round(passes * data.steps_per_epoch))
        trainer.fit_loop.epoch_loop.max_steps = steps
        trainer.fit_loop.max_epochs = math.ceil(passes) + 1  # the steps end it
        read = steps * data.targets_per_step / targets  # less where batches are limited
        say(
            "length",
            f"{steps:,} steps, {read:.1f} passes over the text; --trainer.max_steps changes it",
        )

    @staticmethod
    def _count_in_steps(trainer: L.Trainer, data: Any) -> None:
        each = trainer.accumulate_grad_batches
        limit, interval = trainer.limit_train_batches, trainer.val_check_interval
        if isinstance(limit, int):
            trainer.limit_train_batches = limit * each
        elif limit < 1:
            trainer.limit_train_batches = data.steps_per_epoch * each
        if isinstance(interval, float):
            interval = max(1, int(data.steps_per_epoch * interval))
        if isinstance(interval, int):
            trainer.val_check_interval = interval * each

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        if trainer.global_step == pl_module.planned_steps():  # type: ignore[operator]
            trainer.should_stop = True  # Lightning validates before it stops
