"""Where a training run stands, and what Lightning's counters have to say for that.

Knows: how far a number of optimizer steps reaches into which epoch, on any number of micro-batches.
Leaves to others: keeping the position (`datamodule.py`), applying it (`callbacks/resuming.py`).

An optimizer step consumes exactly one global batch, so a position counts in steps and means the
same on 1, 2 or 8 processes, with or without accumulation. Lightning counts a process' micro-batches
and its counters depend on where in the loop a checkpoint was written; on resume they are therefore
written anew, as at the start of the step after.
"""

from typing import Any, NamedTuple

UNLIMITED = float("inf")


class Position(NamedTuple):
    """After `step` optimizer steps, `consumed` global batches of epoch `epoch` are done.

    At the end of an epoch it is the beginning of the next: `consumed` is below the epoch's length.
    """

    step: int = 0
    epoch: int = 0
    consumed: int = 0

    def at(self, step: int, steps_per_epoch: int) -> "Position":
        """Where the run stands at a later `step`, in epochs of `steps_per_epoch` from here on."""
        epochs, consumed = divmod(self.consumed + step - self.step, steps_per_epoch)
        return Position(step, self.epoch + epochs, consumed)


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
    fit_loop["epoch_loop.state_dict"] = {"_batches_that_stepped": position.step}


def _counts(number: int) -> dict[str, int]:
    return dict.fromkeys(("ready", "started", "processed", "completed"), number)
