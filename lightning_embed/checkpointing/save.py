"""`Checkpoints`: when a run is saved, and which of its checkpoints are kept.

    checkpoints/last.ckpt  previous.ckpt  previous-2.ckpt ...   the newest first
                best.ckpt                                       lowest validation loss

In place of Lightning's ModelCheckpoint, which saves by steps or by minutes but not both, ends the
run on a full disk, and at the end of a run writes that the epoch is over.
"""

import errno
import math
import os
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.strategies import ModelParallelStrategy

from lightning_embed.atomic import remove, sweep
from lightning_embed.checkpointing.resume import Resuming
from lightning_embed.console import say, say_command
from lightning_embed.errors import TrainingStopped, UserError, one_line, require_range
from lightning_embed.library_internals import dump_checkpoint, is_accumulating

ASK_EVERY = 10  # steps after which all processes ask the first one's clock
FIRST_STEPS = 3  # in which a run that a GPU's memory is too small for begins anew
NEXT = "next.ckpt"  # written whole, about to become last.ckpt


class Checkpoints(Checkpoint):
    """Saves at the end of optimizer steps, never in the middle of accumulation.

    Args:
        every_n_steps: optimizer steps between saves; 0 leaves it to the minutes.
        every_n_minutes: minutes between saves, whatever the steps; 0 leaves it to the steps.
        keep_last: how many of these to keep.
        monitor: the validation metric whose best value is kept as best.ckpt.
        mode: whether its lowest ("min") or highest ("max") value is the best.
    """

    def __init__(
        self,
        every_n_steps: int = 200,
        every_n_minutes: float = 15.0,
        keep_last: int = 2,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
    ) -> None:
        require_range("--checkpoints.keep_last", keep_last, at_least=1)
        require_range("--checkpoints.every_n_steps", every_n_steps, at_least=0)
        require_range("--checkpoints.every_n_minutes", every_n_minutes, at_least=0)
        self.every_n_steps, self.every_n_minutes = every_n_steps, every_n_minutes
        self.keep_last, self.monitor, self.mode = keep_last, monitor, mode
        self.folder = Path()  # the run's, set by whoever knows it,
        self.resume = ""  # like the command line that goes on from there
        self.best = math.inf if mode == "min" else -math.inf
        self.best_step = 0
        self.failures = 0  # saves that a full disk prevented
        self._saved_step = math.inf  # before training begins there is nothing to save
        self._saved_at = time.monotonic()
        self._tried_step = 0  # a full disk is not tried again at every step
        self._in_step = False
        self._group: dist.ProcessGroup | None = None

    @property
    def last_path(self) -> Path:
        return self.folder / "last.ckpt"

    @property
    def best_path(self) -> Path:
        return self.folder / "best.ckpt"

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_step": self.best_step, "monitor": self.monitor}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # A run that goes on elsewhere, or by another metric, has its own best to find.
        if self.best_path.exists() and state_dict.get("monitor", self.monitor) == self.monitor:
            self.best, self.best_step = state_dict["best"], state_dict["best_step"]

    # When --------------------------------------------------------------------------------------

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # Another process may have seen this run's folder and taken the next number.
        self.folder = Path(trainer.strategy.broadcast(str(self.folder)))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            sweep(self.folder)
        self._saved_step = self._tried_step = trainer.global_step
        self._saved_at = time.monotonic()
        if trainer.world_size > 1 and self.every_n_minutes:
            self._group = dist.new_group(
                backend="gloo"
            )  # on CPU tensors, so that no GPU is waited for

    def on_before_optimizer_step(self, *args: Any) -> None:
        self._in_step = True

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        self._in_step = False
        if is_accumulating(trainer):
            return  # a checkpoint here would lose gradients
        # Where validation follows, the save waits for it, so that a resume does not repeat it.
        if self._is_due(trainer) and not Resuming.validates_now(trainer):
            self.save(trainer)

    def _is_due(self, trainer: L.Trainer) -> bool:
        step = trainer.global_step
        every = self.every_n_steps
        if every and step // every > self._tried_step // every:
            return True
        if not self.every_n_minutes:
            return False
        late = time.monotonic() - self._saved_at > 60 * self.every_n_minutes
        if self._group is None:
            return late
        if step % ASK_EVERY:
            return False
        agreed = torch.tensor(late)
        dist.broadcast(agreed, src=0, group=self._group)  # clocks differ
        return bool(agreed)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        found = trainer.callback_metrics
        if self.monitor not in found:
            raise UserError(
                f"--checkpoints.monitor {self.monitor} is no metric of the validation: there are"
                f" {', '.join(sorted(name for name in found if name.startswith('val/')))}"
            )
        value = float(found[self.monitor])
        if value < self.best if self.mode == "min" else value > self.best:
            before = self.best, self.best_step
            self.best, self.best_step = value, trainer.global_step
            if not self._write(trainer, self.best_path):
                self.best, self.best_step = before
        if self._is_due(trainer):
            self.save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Before WeightAveraging puts the mean in the place of the weights that training goes on
        # with: it does so when training ends.
        if trainer.should_stop and not is_accumulating(trainer):
            self.on_train_end(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._saved_step != trainer.global_step:
            self.save(trainer)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Nothing was left to train after best.ckpt, say, since a kill came before last.ckpt was
        written: training never began, and last.ckpt is of an earlier step."""
        begun_from = trainer.ckpt_path
        if self._saved_step == math.inf and begun_from and Path(begun_from) != self.last_path:
            self.save(trainer)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Keep what was done before an accident, unless it struck the weights."""
        if self._in_step or not isinstance(exception, Exception) or trainer.state.fn != "fit":
            return
        spoiled = isinstance(exception, TrainingStopped) and not exception.weights_are_good
        if spoiled or trainer.global_step <= self._saved_step:
            return
        few = trainer.global_step < self._saved_step + FIRST_STEPS and trainer.world_size == 1
        if few and isinstance(exception, torch.OutOfMemoryError):
            return
        if isinstance(trainer.strategy, ModelParallelStrategy) or not trainer.is_global_zero:
            return  # the other processes may have failed elsewhere, and saving needs all
        try:
            checkpoint = dump_checkpoint(trainer)
            trainer.strategy.save_checkpoint(checkpoint, self.folder / NEXT)
            self._rotate()
            say("saved", f"{self.last_path} (step {trainer.global_step})")
            if not isinstance(exception, TrainingStopped):  # its own words say what to change
                say_command("go on", self.resume)
        except Exception as error:  # the exception that ends the run matters more
            say("warning", f"not saved: {one_line(error)}")

    # How ---------------------------------------------------------------------------------------

    def save(self, trainer: L.Trainer) -> bool:
        """Write `last.ckpt`, what was it becomes `previous.ckpt`; every process must call it.

        Returns False, having said so, where the disk is full: then nothing has changed.
        """
        self._saved_at, self._tried_step = time.monotonic(), trainer.global_step
        if not self._write(trainer, self.folder / NEXT):
            return False
        self._saved_step = trainer.global_step
        if trainer.is_global_zero:
            self._rotate()
        trainer.strategy.barrier("checkpoint")
        return True

    def _write(self, trainer: L.Trainer, path: Path) -> bool:
        for logger in trainer.loggers:  # so that a kill loses no figures up to here
            logger.save()
        problem = ""
        try:
            trainer.save_checkpoint(path)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            problem = str(error)
            trainer.strategy.barrier("Trainer.save_checkpoint")  # where the others wait
        if trainer.world_size > 1:
            problem = trainer.strategy.broadcast(problem)
        if problem:
            self.failures += 1
            say(
                "warning",
                f"step {trainer.global_step}: {problem}; training goes on, the checkpoint before"
                f" is kept in {self.folder}",
            )
        return not problem

    def _names(self) -> list[Path]:
        """From the newest to the oldest."""
        older = [f"previous{f'-{n}' if n > 1 else ''}.ckpt" for n in range(1, self.keep_last)]
        return [self.folder / name for name in ("last.ckpt", *older)]

    def _rotate(self) -> None:
        """Rename from the oldest on, so that every name is free when it is taken."""
        names = self._names()
        remove(names[-1])
        for newer, older in reversed(list(pairwise([self.folder / NEXT, *names]))):
            if newer.exists():
                os.replace(newer, older)
