"""How far a run has got in its data, in optimizer steps and epochs.

An optimizer step consumes exactly one global batch of the plan (`plan.py`), so a position counts in
steps and means the same on 1, 2 or 8 processes, with or without accumulation.
"""

from typing import NamedTuple


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
