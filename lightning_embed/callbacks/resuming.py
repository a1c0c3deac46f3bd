"""`Resuming`: a run goes on where it was, however it is divided now.

Knows: what a checkpoint must carry beside weights, how Lightning is brought to the place, which
validation is still due. Leaves to others: the arithmetic of places (`position.py`), data
(`datamodule.py`), what of it a person is told (`run.py`).
"""

from typing import Any

import lightning as L

from lightning_embed.position import Position, is_validation_due, place_loops


class Resuming(L.Callback):
    """Writes Lightning's counters anew when a checkpoint is loaded, and runs a validation that was
    due when the checkpoint was written.

    Args:
        settings: plain values that a later run compares with its own, kept in each checkpoint.
    """

    def __init__(self, settings: dict[str, Any] | None = None) -> None:
        self.settings = settings or {}
        self.validated_step = -1

    def state_dict(self) -> dict[str, Any]:
        return {"validated_step": self.validated_step, "settings": self.settings}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validated_step = state_dict["validated_step"]

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn == "fit" and "loops" in checkpoint:
            position = trainer.datamodule.position(checkpoint["global_step"])  # type: ignore[attr-defined]
            place_loops(checkpoint["loops"]["fit_loop"], position, trainer.accumulate_grad_batches)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.validated_step != trainer.global_step and self.validates_now(trainer):
            # As Lightning's own loop does after a batch.
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.run()
            trainer.training = True

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.validated_step = trainer.global_step

    @staticmethod
    def validates_now(trainer: L.Trainer) -> bool:
        """Whether Lightning validates at the present optimizer step."""
        if not trainer.enable_validation or trainer.val_check_batch is None:
            return False
        if trainer.should_stop:
            return True
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        position: Position = data.position(trainer.global_step)
        return is_validation_due(
            position,
            data.steps_per_epoch,
            trainer.val_check_batch / trainer.accumulate_grad_batches,
            trainer.check_val_every_n_epoch,
        )
