"""`Resuming`: brings Lightning to the position where a run stopped, on any number of processes.

Lightning counts a process' micro-batches, and its counters depend on where in its loop a checkpoint
was written. They are therefore written anew from the position (`position.py`), as they would be at
the start of the next optimizer step. Whether a checkpoint may be resumed at all is decided in
`compatibility.py`.
"""

from typing import Any

import lightning as L

from lightning_embed.checkpointing.position import Position
from lightning_embed.errors import UserError
from lightning_embed.library_internals import STEPPED

UNLIMITED = float("inf")


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

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Each process looks for the checkpoint by itself: they must have found the same."""
        first = trainer.strategy.broadcast(str(trainer.ckpt_path))
        if first != str(trainer.ckpt_path):
            raise UserError(
                f"the processes of this run found different checkpoints, {first} and"
                f" {trainer.ckpt_path}: give --ckpt_path a file that all hosts see"
            )

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


def is_validation_due(
    position: Position,
    steps_per_epoch: int,
    every_n_steps: float,
    every_n_epochs: int | None,
) -> bool:
    """Whether Lightning validates after this position's last step.

    Args:
        position: of the run.
        steps_per_epoch: optimizer steps in an epoch.
        every_n_steps: between validations; infinite means at the end of an epoch.
        every_n_epochs: epochs with validation, and steps counted within each; None counts steps
            across epochs.
    """
    if position.step == 0:
        return False
    if every_n_epochs is None:
        return position.step % every_n_steps == 0
    ended = position.consumed == 0
    done = steps_per_epoch if ended else position.consumed
    epoch = position.epoch if ended else position.epoch + 1  # how many have begun
    if epoch % every_n_epochs:
        return False
    return done == steps_per_epoch if every_n_steps == UNLIMITED else done % every_n_steps == 0


def place_loops(fit_loop: dict[str, Any], position: Position, accumulate: int) -> None:
    """Write a checkpoint's `loops["fit_loop"]` anew so that Lightning goes on from `position`.

    All counters say that everything begun is finished, which Lightning takes for a save after
    validation: it trains next. A validation that is still due is for the caller to run.
    """
    mid_epoch = position.consumed > 0
    epochs = position.epoch
    fit_loop["epoch_progress"] = {
        name: _counts(epochs) | ({"ready": epochs + 1, "started": epochs + 1} if mid_epoch else {})
        for name in ("total", "current")
    }
    fit_loop["epoch_loop.batch_progress"] = {
        "total": _counts(position.step * accumulate),
        "current": _counts(position.consumed * accumulate),
        "is_last_batch": False,
    }
    steps = {"total": _counts(position.step), "current": _counts(position.consumed)}
    fit_loop["epoch_loop.automatic_optimization.optim_progress"] = {
        "optimizer": {"step": steps, "zero_grad": steps}
    }
    fit_loop["epoch_loop.scheduler_progress"] = steps
    fit_loop["epoch_loop.val_loop.batch_progress"] = {
        "total": _counts(0),
        "current": _counts(0),
        "is_last_batch": False,
    }
    fit_loop["epoch_loop.state_dict"] = {STEPPED: position.step}


def _counts(number: int) -> dict[str, int]:
    return dict.fromkeys(("ready", "started", "processed", "completed"), number)
