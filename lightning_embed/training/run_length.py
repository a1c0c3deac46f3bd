"""`RunLength`: how many optimizer steps a run takes when no limit was given.

It also has Lightning count limits in optimizer steps and validate after the last one.
"""

import math
from typing import Any

import lightning as L

from lightning_embed.console import say

LEAST_TOKENS = 4_000_000  # to train on: a smaller text is read several times, up to MOST_PASSES
MOST_PASSES = 10.0


def planned_steps(trainer: L.Trainer) -> int:
    """Optimizer steps of the whole run, from the trainer's limits and the data's plan.

    Not `trainer.estimated_stepping_batches`, which builds the data loader too early.
    """
    limits = [trainer.max_steps] if trainer.max_steps > 0 else []
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        data = getattr(trainer, "datamodule", None)
        if data is not None:
            limits.append(trainer.max_epochs * data.steps_per_epoch)
    return min(limits, default=1000)


class RunLength(L.Callback):
    """Sets `max_steps` from the amount of text unless a limit was given, and validates after the
    last step, because the weights at the end of a schedule are mostly the best.

    Lightning counts `val_check_interval` and `limit_train_batches` in a process' micro-batches.
    Here the user gives optimizer steps, which mean the same with any accumulation.

    Args:
        given: the user gave `max_steps` or `max_epochs`.
    """

    def __init__(self, given: bool) -> None:
        self.given = given

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        # The first process may have raised it, see `commands/splitting.py`.
        trainer.accumulate_grad_batches = trainer.strategy.broadcast(
            trainer.accumulate_grad_batches
        )
        data = trainer.datamodule  # type: ignore[attr-defined]
        self._count_in_steps(trainer, data)
        if self.given:
            return
        targets = max(1, data.unique_targets)
        passes = min(MOST_PASSES, max(1.0, LEAST_TOKENS / targets))
        steps = max(1, round(passes * data.steps_per_epoch))
        trainer.fit_loop.epoch_loop.max_steps = steps
        trainer.fit_loop.max_epochs = math.ceil(passes) + 1  # so that max_steps ends the run
        read = steps * data.targets_per_step / targets  # below `passes` where batches are limited
        say(
            "length",
            f"{steps:,} steps, {read:.1f} passes over the text; --trainer.max_steps changes it",
        )

    @staticmethod
    def _count_in_steps(trainer: L.Trainer, data: Any) -> None:
        each = trainer.accumulate_grad_batches
        limit, interval = trainer.limit_train_batches, trainer.val_check_interval
        if isinstance(limit, int):
            if limit > data.batches_per_epoch:
                say(
                    "note",
                    f"--trainer.limit_train_batches {limit} is more than the text has: an epoch is"
                    f" all of its {data.batches_per_epoch:,} steps",
                )
            trainer.limit_train_batches = limit * each
        elif limit < 1:
            trainer.limit_train_batches = data.steps_per_epoch * each
        if isinstance(interval, float):
            interval = max(1, int(data.steps_per_epoch * interval))
        elif isinstance(interval, int) and trainer.check_val_every_n_epoch is not None:
            epoch = data.steps_per_epoch
            if interval > epoch:
                say(
                    "note",
                    f"--trainer.val_check_interval {interval} is longer than an epoch of {epoch:,}"
                    " steps: validation at the end of each; with"
                    " --trainer.check_val_every_n_epoch null it counts across epochs",
                )
                interval = epoch
        if isinstance(interval, int):
            trainer.val_check_interval = interval * each

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        if trainer.global_step == planned_steps(trainer):
            trainer.should_stop = True  # Lightning validates before it stops
