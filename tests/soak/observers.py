"""Callbacks that write down, or disturb, what a run in a process of its own does.

Given as `--trainer.callbacks+=soak.observers.NAME`. Each process writes lines of JSON to a file of
its own, which the test reads afterwards with `read_lines`.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from lightning_embed.data.batch import Batch
from lightning_embed.special_tokens import PAD_ID

LOADED = 97  # the exit status of a run that only loads


def tensors_in(value: Any) -> Iterable[Tensor]:
    """All tensors of nested dicts and lists, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from tensors_in(value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)


def digest(value: Any) -> str:
    """Of all bits of all tensors in it, and of their shapes."""
    found = hashlib.blake2b(digest_size=16)
    for tensor in tensors_in(value):
        found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


class Writer(L.Callback):
    """Appends to `<file>.<rank>`."""

    def __init__(self, file: str) -> None:
        self.file = file

    def write(self, trainer: L.Trainer, **values: Any) -> None:
        with open(f"{self.file}.{trainer.global_rank}", "a", encoding="utf-8") as opened:
            opened.write(json.dumps(values) + "\n")


class Loaded(Writer):
    """Writes step, weights and moments as a command begins, and ends it there.

    Args:
        file: where to.
    """

    def _stop(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.write(
            trainer,
            step=trainer.global_step,
            weights=digest(pl_module.state_dict()),
            moments=digest([optimizer.state_dict()["state"] for optimizer in trainer.optimizers]),
        )
        raise SystemExit(LOADED)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop(trainer, pl_module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != "fit":
            self._stop(trainer, pl_module)


class Batches(Writer):
    """Writes, for each optimizer step, this process' rows of the global batch and its share of the
    loss; the first gradients go to `<file>.gradients`.

    Nothing is asked of other processes, so that it cannot help them to agree.
    """

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self._rows: list[str] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        for ids, targets in zip(batch.ids, batch.targets, strict=True):
            if (ids != PAD_ID).any():  # how many rows are all padding depends on the split
                self._rows.append(digest([ids, targets]))

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any
    ) -> None:
        if trainer.global_step:
            return
        found = {}
        for name, parameter in pl_module.named_parameters():
            gradient = parameter.grad
            assert gradient is not None, name
            found[name] = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
        if trainer.is_global_zero:
            torch.save(found, f"{self.file}.gradients")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        if trainer.fit_loop._should_accumulate():
            return
        share = float(pl_module.step_loss)  # type: ignore[arg-type]
        self.write(trainer, step=trainer.global_step, rows=self._rows, loss=share)
        self._rows = []


class Filler(L.Callback):
    """Fills the disk to its last byte in a stretch of training.

    Args:
        file: what grows.
        first: the step before which it does.
        last: the step before which it goes again; 0, it stays.
    """

    def __init__(self, file: str, first: int, last: int = 0) -> None:
        self.file, self.first, self.last = Path(file), first, last

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step + 1 == self.first:
            with open(self.file, "wb", buffering=0) as opened:
                for size in (2**16, 2**12, 1):
                    with contextlib.suppress(OSError):
                        while opened.write(bytes(size)) == size:
                            pass
        elif trainer.global_step + 1 == self.last:
            self.file.unlink()


def read_lines(file: str | Path, rank: int = 0) -> list[dict[str, Any]]:
    """What a process wrote, or nothing where it did not get so far."""
    path = Path(f"{file}.{rank}")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
