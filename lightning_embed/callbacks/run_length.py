"""`RunLength`: how long to train when nobody said, and that the end is validated.

Knows: a rule of thumb. Leaves to others: stopping early (Lightning's EarlyStopping).
"""

from typing import Any

import lightning as L
import numpy as np

from lightning_embed.console import say

TOKENS_WORTH_SEEING = 3_500_000  # a small text is read several times, up to MOST_EPOCHS
MOST_EPOCHS = 10


class RunLength(L.Callback):
    """Sets `max_epochs` from the amount of text unless a limit was given, and has the last step
    validated wherever it falls, as the weights a schedule ends with are mostly the best.

    Args:
        given: the user gave `max_steps` or `max_epochs`.
    """

    def __init__(self, given: bool) -> None:
        self.given = given

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self.given or stage != "fit":
            return
        targets = trainer.datamodule.prepared.train.n_targets  # type: ignore[attr-defined]
        epochs = int(np.clip(round(TOKENS_WORTH_SEEING / max(1, targets)), 1, MOST_EPOCHS))
        trainer.fit_loop.max_epochs = epochs
        if epochs > 1:
            say("length", f"{epochs} epochs, as the text is short; --trainer.max_epochs changes it")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        if trainer.global_step == pl_module.planned_steps():  # type: ignore[operator]
            trainer.should_stop = True  # Lightning validates before it stops
