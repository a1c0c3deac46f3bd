"""`RunLength`: how long to train when nobody said, and that the end is validated.

Knows: a rule of thumb. Leaves to others: stopping early (Lightning's EarlyStopping).
"""

import math
from typing import Any

import lightning as L

from lightning_embed.console import say

TOKENS_WORTH_SEEING = 2_600_000  # a small text is read several times, up to MOST_PASSES
MOST_PASSES = 10.0


class RunLength(L.Callback):
    """Sets `max_steps` from the amount of text unless a limit was given, and has the last step
    validated wherever it falls, as the weights a schedule ends with are mostly the best.

    Args:
        given: the user gave `max_steps` or `max_epochs`.
    """

    def __init__(self, given: bool) -> None:
        self.given = given

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self.given or stage != "fit":
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        targets = max(1, data.prepared.train.n_targets)
        passes = min(MOST_PASSES, max(1.0, TOKENS_WORTH_SEEING / targets))
        steps = max(1, round(passes * data.steps_per_epoch))
        trainer.fit_loop.epoch_loop.max_steps = steps
        trainer.fit_loop.max_epochs = math.ceil(passes) + 1  # the steps end it
        say(
            "length",
            f"{steps:,} steps, {passes:.1f} passes over the text; --trainer.max_steps changes it",
        )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        if trainer.global_step == pl_module.planned_steps():  # type: ignore[operator]
            trainer.should_stop = True  # Lightning validates before it stops
