"""`GracefulStop`: SIGTERM, SIGUSR1 and Ctrl-C finish the step, save, and say how to go on.

Knows: flag-only handlers, agreement between processes, exit codes. Leaves to others: writing the
file (`checkpoints.py`).

Lightning's own handlers end with exit status 0 or hang when one rank alone is told; these take
their place once training starts.
"""

import signal
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist

from lightning_embed.console import say

NAMES = ("SIGINT", "SIGTERM", "SIGUSR1")  # the last is missing on Windows


class Stopped(SystemExit):
    """The run was asked to stop and has saved; the status is 128 + signal."""


class GracefulStop(L.Callback):
    """Stops at the next optimizer step's end; a second Ctrl-C stops at once.

    Args:
        path: the checkpoint to write.
        resume: the command line that goes on from there.
    """

    def __init__(self, path: Path, resume: str) -> None:
        self.path, self.resume = path, resume
        self.received = 0
        self._before: dict[int, Any] = {}
        self._group: dist.ProcessGroup | None = None

    def _handle(self, number: int, frame: Any) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for number in (getattr(signal, name) for name in NAMES if hasattr(signal, name)):
            self._before[number] = signal.signal(number, self._handle)
        if trainer.world_size > 1:
            self._group = dist.new_group(backend="gloo")  # agreeing must not wait for a GPU

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        if trainer.fit_loop._should_accumulate():
            return  # a checkpoint here would lose gradients
        received = self.received
        if self._group is not None:
            agreed = torch.tensor(received)
            dist.all_reduce(agreed, dist.ReduceOp.MAX, group=self._group)
            received = int(agreed)
        if received or trainer.global_step == pl_module.planned_steps():  # type: ignore[operator]
            # Saved here, the run's end can be gone on from when its limit is raised; Lightning's
            # own save at the end would say that the epoch is finished.
            trainer.save_checkpoint(self.path)
        if received:
            say("stopped", f"by {signal.Signals(received).name} after step {trainer.global_step}")
            say("saved", str(self.path))
            say("go on", self.resume)
            raise Stopped(128 + received)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restore()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._restore()
