"""`GracefulStop`: Ctrl-C, SIGTERM and what batch systems and closed terminals send finish the step,
save, and say how to go on.

Lightning's own handlers end with exit status 0, or hang when one process alone gets the signal;
these take their place once training starts. They only note the signal: processes agree on it at the
end of a step.
"""

import signal
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Checkpoint

from lightning_embed.checkpointing.save import Checkpoints
from lightning_embed.console import say, say_command
from lightning_embed.library_internals import is_accumulating, leave_signals_alone
from lightning_embed.processes import stop_signals


class Stopped(SystemExit):
    """The run was asked to stop; the status is 128 + signal."""


class GracefulStop(Checkpoint):
    """Stops at the next optimizer step's end, or the next batch's in an evaluation; a second Ctrl-C
    stops at once.

    A `Checkpoint` for Lightning, which calls those last: what it saves must know of the whole step.

    Args:
        checkpoints: what saves, and knows the command line that goes on from there.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.received = 0
        self._before: dict[int, Any] = {}
        self._group: dist.ProcessGroup | None = None

    def _handle(self, number: int, frame: Any) -> None:
        if self.received and number == signal.SIGINT:
            raise Stopped(128 + number)
        self.received = number

    def _install(self, trainer: L.Trainer) -> None:
        if self._before:
            return
        for number in stop_signals():
            self._before[number] = signal.signal(number, self._handle)
        if trainer.world_size > 1 and self._group is None:
            self._group = dist.new_group(
                backend="gloo"
            )  # on CPU tensors, so that no GPU is waited for

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        leave_signals_alone(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._install(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._install(trainer)

    on_test_start = on_predict_start = on_validation_start

    def _agreed(self) -> int:
        """The signal any process has received, or 0."""
        if self._group is None:
            return self.received
        agreed = torch.tensor(self.received)
        dist.all_reduce(agreed, dist.ReduceOp.MAX, group=self._group)
        return int(agreed)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        if is_accumulating(trainer):
            return  # a checkpoint here would lose gradients
        if received := self._agreed():
            self._stop(trainer, received, save=True)

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        if received := self._agreed():
            self._stop(trainer, received, save=trainer.state.fn == "fit")

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end

    def _stop(self, trainer: L.Trainer, received: int, save: bool) -> None:
        name = signal.Signals(received).name
        if not save:
            say("stopped", f"by {name}")
            raise Stopped(128 + received)
        saved = self.checkpoints.save(trainer)
        say("stopped", f"by {name} after step {trainer.global_step}")
        if saved:
            say("saved", str(self.checkpoints.last_path))
        say_command("go on", self.checkpoints.resume)
        raise Stopped(128 + received)

    def end_if_asked(self, trainer: L.Trainer) -> None:
        """Where an error ends training after a signal: a terminal sends Ctrl-C to the compiler's
        processes too, which then fail, and that is no fault to be told of.

        Raises:
            Stopped: a signal was received.
        """
        if self.received:
            name = signal.Signals(self.received).name
            say("stopped", f"by {name} after step {trainer.global_step}")
            raise Stopped(128 + self.received) from None

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._restore()
        self._group = None  # it ends with the processes that made it

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._restore()
