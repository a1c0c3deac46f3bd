"""`PaddingGuard`: proves at every optimizer step that padding vectors are what they were.

Knows: how to look at a row and its gradient without waiting for a GPU, and what to say when one
moved. Leaves to others: keeping the row zero (`embedding.py`), finding embeddings (`padded.py`).

Works with any LightningModule. Bits are compared, so -0, NaN and the smallest drift count.
"""

from dataclasses import dataclass
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor

from lightning_embed.console import say
from lightning_embed.padded import PaddedEmbedding, find_padded_embeddings

BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class PaddingVectorChanged(RuntimeError):
    """A padding vector is no longer bitwise what it was when training began."""


@dataclass
class _Watch:
    """Evidence about one row, kept on its device; read only now and then on a GPU."""

    embedding: PaddedEmbedding
    reference: Tensor  # (D,)
    first_step: Tensor  # int64, -1 until the row changed
    deviation: Tensor  # float32, largest |row - reference| then; infinite when it is not a number
    gradient: Tensor  # float32, largest |gradient| the row has seen

    @torch.no_grad()
    def look(self, step: int) -> None:
        row = self.embedding.row()
        if row is None:
            return
        bits = BITS[row.element_size()]
        changed = (row.view(bits) != self.reference.view(bits)).any()
        first = changed & (self.first_step < 0)
        distance = (row.float() - self.reference.float()).abs().max().nan_to_num(nan=torch.inf)
        self.deviation.copy_(torch.where(first, distance, self.deviation))
        self.first_step.copy_(torch.where(first, step, self.first_step))

    @torch.no_grad()
    def look_at_gradient(self) -> None:
        gradient = self.embedding.gradient_row()
        if gradient is not None:
            largest = gradient.float().abs().max().nan_to_num(nan=torch.inf)
            torch.maximum(self.gradient, largest, out=self.gradient)


class PaddingGuard(L.Callback):
    """Watches every embedding with a `padding_idx`, bit by bit, at every optimizer step.

    On CPU a change stops training at once. On a GPU evidence gathers on the device, without
    waiting for it, and is read every `every_n_steps`, before each checkpoint and validation; the
    message then names the step at which it happened.

    Args:
        on_change: "error" raises `PaddingVectorChanged`, "warn" says so once, "repair" writes the
            reference back and says so.
        every_n_steps: optimizer steps between readings on a GPU, and between logged norms.
    """

    def __init__(
        self, on_change: Literal["error", "warn", "repair"] = "error", every_n_steps: int = 50
    ) -> None:
        if on_change not in ("error", "warn", "repair"):
            raise ValueError(f"on_change is {on_change!r}; choose error, warn or repair")
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1, not {every_n_steps}")
        self.on_change = on_change
        self.every_n_steps = every_n_steps
        self.watches: list[_Watch] = []
        self.steps_checked = 0

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.watches, self.steps_checked = [], 0
        for embedding in find_padded_embeddings(pl_module):
            row = embedding.row()
            device = embedding.weight.device
            width = (
                row if row is not None else torch.zeros(embedding.weight.shape[1], device=device)
            )
            self.watches.append(
                _Watch(
                    embedding,
                    width.clone(),
                    torch.tensor(-1, device=device),
                    torch.zeros((), device=device),
                    torch.zeros((), device=device),
                )
            )
            if row is not None and bool(row.count_nonzero()):
                say(
                    "note",
                    f"{embedding.name}[{embedding.padding_idx}] is not zero; it is kept as is",
                )
        if not self.watches:
            say("note", "no embedding with a padding_idx here: nothing to guard")

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any
    ) -> None:
        for watch in self.watches:
            watch.look_at_gradient()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        step = trainer.global_step
        if step == self.steps_checked:
            return  # in the middle of accumulation
        self.steps_checked = step
        for watch in self.watches:
            watch.look(step)
        at_interval = step % self.every_n_steps == 0
        if at_interval or pl_module.device.type == "cpu":
            self.read(trainer)
        if at_interval:
            self._log(trainer, step)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.read(trainer)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.read(trainer)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.read(trainer)

    def read(self, trainer: L.Trainer) -> None:
        """Act on the evidence gathered so far; waits for the device."""
        for watch in self.watches:
            step = int(watch.first_step)
            if step < 0:
                continue
            name = f"{watch.embedding.name}[{watch.embedding.padding_idx}]"
            message = (
                f"{name} moved by {float(watch.deviation):.1e} at step {step}; its gradient"
                f" reached {float(watch.gradient):.1e} (rank {trainer.global_rank})"
            )
            if self.on_change == "error":
                raise PaddingVectorChanged(
                    f"{message}. Use TokenEmbedding and its logits(), or set"
                    " --padding_guard.on_change repair to go on"
                )
            if self.on_change == "repair":
                self._repair(watch)
                say("repaired", message)
            else:
                say("warning", message)
                row = watch.embedding.row()
                if row is not None:
                    watch.reference.copy_(row)  # say it once for each change
            watch.first_step.fill_(-1)

    @staticmethod
    @torch.no_grad()
    def _repair(watch: _Watch) -> None:
        row = watch.embedding.row()
        if row is not None:
            row.copy_(watch.reference)

    def _log(self, trainer: L.Trainer, step: int) -> None:
        values: dict[str, float] = {}
        for watch in self.watches:
            row = watch.embedding.row()
            if row is not None:
                suffix = "" if len(self.watches) == 1 else f"/{watch.embedding.name}"
                values[f"padding/norm{suffix}"] = float(row.float().norm())
                values[f"padding/gradient{suffix}"] = float(watch.gradient)
        for logger in trainer.loggers:
            logger.log_metrics(values, step)
