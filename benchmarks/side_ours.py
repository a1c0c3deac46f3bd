"""This project's side of a benchmark, in one of five forms.

Started by `peers.py`; `form` says which:

- step   the network, its compiled parts, clip and optimizer in a bare loop over full random windows
- fit    the whole program, `train.py fit`, with a callback that takes turns
- timed fit  the same to its own end, with a callback that writes down each step's time
- layout  as step, with rows that hold one or several windows of the corpus
- bare   the fit's model, batches, compiler, clip, optimizer and schedule in a bare loop: what is
         left of a fit without Lightning's loop, logger, progress, guard and checkpoints
"""

import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from torch.optim.lr_scheduler import LambdaLR
from turns import Turns, now, parameter_count, random_windows, settings

from lightning_embed import LanguageModel, TextDataModule
from lightning_embed.arithmetic import fastest_format
from lightning_embed.data.batch import Batch
from lightning_embed.data.packing import pack
from lightning_embed.data.plan import MicroBatch
from lightning_embed.hardware import keep_freed_memory
from lightning_embed.training.optim import MuonAdamW, parameter_groups
from lightning_embed.training.schedule import schedule_factor


class TakeTurns(L.Callback):
    """`Turns` after each optimizer step of a Trainer.

    Args:
        warm, steps: see `Turns`.
    """

    def __init__(self, warm: int, steps: int) -> None:
        self.warm, self.steps = warm, steps
        self._turns: Turns | None = None
        self._seen = 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, *_: Any
    ) -> None:
        if trainer.global_step == self._seen:
            return  # in the middle of accumulation
        self._seen = trainer.global_step
        if self._turns is None:
            about = {"parameters": parameter_count(pl_module)}
            self._turns = Turns(self.warm, self.steps, about)
        self._turns(batch.global_targets)


class TimeSteps(L.Callback):
    """Writes down, as JSON, seconds from step to step, those from `began` to the end of the last
    validation, and its loss.

    Args:
        report: the file.
        began: `time.time()` when the command was given.
    """

    def __init__(self, report: str, began: float) -> None:
        self.report, self.began = Path(report), began
        self.seconds: list[float] = []
        self._last = 0.0

    def on_train_start(self, *_: Any) -> None:
        self._last = now()

    def on_train_batch_end(self, *_: Any) -> None:
        self.seconds.append(now() - self._last)
        self._last = now()

    def on_validation_end(self, *_: Any) -> None:
        self._last = now()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        found = {
            "loss": float(trainer.callback_metrics["val/loss"]),
            "whole": time.time() - self.began,
            "parameters": parameter_count(pl_module),
            "seconds": self.seconds,
            "compiled": pl_module.network.compiled,
        }
        self.report.write_text(json.dumps(found), encoding="utf-8")


def fit(arguments: list[str], callback: str, **settings: Any) -> None:
    """`train.py fit` with one of the callbacks above, by name."""
    from lightning_embed.cli import main

    given = {"class_path": f"side_ours.{callback}", "init_args": settings}
    raise SystemExit(main(["fit", *arguments, "--trainer.callbacks", json.dumps([given])]))


def planned(asked: dict[str, Any]) -> Iterator[Batch]:
    """The batches of a fit with these data settings, epoch after epoch."""
    loader = TextDataModule(**asked["data"]).train_dataloader()
    for epoch in range(10**9):
        loader.set_epoch(epoch)
        yield from loader


def laid_out(asked: dict[str, Any]) -> Iterator[Batch]:
    """Batches of the same windows in either layout, `padding` of the one-window rows empty.

    A batch has as many windows as fill `rows` rows when packed; padded, each has a row of the full
    width. Drawn from the shortest windows of the corpus, those that together have the mean length
    which this padding asks for.
    """
    rows, width = asked["rows"], asked["length"]
    source = TextDataModule(**asked["data"]).train_dataloader().rows
    length = source.windows.length.astype(np.int64)
    shortest = np.argsort(length, kind="stable")
    wanted = (1 - asked["padding"]) * width
    means = np.cumsum(length[shortest]) / np.arange(1, len(length) + 1)
    pool = shortest[means <= wanted]
    draw = np.random.default_rng(0)
    while True:
        chosen = draw.permutation(pool)[: rows * width // 8]
        chosen = chosen[np.cumsum(length[chosen]) <= rows * width]
        chosen = chosen[np.argsort(-length[chosen], kind="stable")]
        row = pack(length[chosen], width)
        chosen, row = chosen[row < rows], row[row < rows]  # the same windows in both layouts
        if asked["layout"] == "packed":
            order, n_rows = np.argsort(row, kind="stable"), rows
            chosen, row = chosen[order], row[order]
        else:
            row, n_rows = np.arange(len(chosen)), len(chosen)
        real = int(length[chosen].sum())
        yield source[MicroBatch(chosen, row, n_rows, width, real, n_rows * width, 0)]


def drawn(asked: dict[str, Any]) -> Iterator[Batch]:
    rows, length = asked["rows"], asked["length"]
    nothing = torch.zeros(rows, dtype=torch.long)
    where = asked["tokens"], asked["id_type"]
    for ids, targets in random_windows(*where, rows, length, asked["device"]):
        yield Batch(ids, targets, nothing, nothing, rows * length, rows * length)


def to_device(batch: Batch, device: str) -> Batch:
    """As Lightning does it: every tensor of the tuple, also in tuples inside."""
    moved: Batch = move_data_to_device(batch, torch.device(device))
    return moved


def loop(asked: dict[str, Any], batches: Iterator[Batch]) -> None:
    torch.manual_seed(42)
    keep_freed_memory()  # as every run does
    device = asked.get("device", "cpu")
    module = LanguageModel(asked["vocab_size"], asked["length"], **asked["model"]).to(device)
    network, h = module.network, module.hparams
    first = next(batches)  # as a run decides: by the targets of a batch
    groups = parameter_groups(
        network,
        optimizer=h["optimizer"],
        lr=h["lr"],
        muon_lr=h["muon_lr"],
        muon_dtype=h["muon_dtype"] or fastest_format(device).name,
        muon_turns=h["muon_turns"] or module.turns(first.global_targets, asked["length"]),
        weight_decay=h["weight_decay"],
        betas=tuple(h["betas"]),
    )
    optimizer = MuonAdamW(groups, fused=True)
    factor = partial(
        schedule_factor,
        schedule="wsd",
        total_steps=10_000,
        warmup_steps=20,
        decay_fraction=0.5,
        final_fraction=0.0,
    )
    scheduler = LambdaLR(optimizer, factor)
    mixed = asked["precision"] == "bf16-mixed"
    low = torch.autocast(device, torch.bfloat16) if mixed else nullcontext()
    turns = Turns(asked["warm"], asked["steps"], {"parameters": parameter_count(network)})
    if h["compile"]:
        network.compile_parts()
    for batch in chain([first], batches):
        batch = to_device(batch, device)
        real = batch.global_targets
        with low:
            loss = network.loss(
                batch.ids, batch.targets, segments=batch.segments, repack=batch.repack
            )
            loss = loss / real
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        turns(real)


def main() -> None:
    asked = settings()
    if asked["form"] == "fit":
        fit(asked["arguments"], "TakeTurns", warm=asked["warm"], steps=asked["steps"])
    if asked["form"] == "timed fit":
        fit(asked["arguments"], "TimeSteps", report=asked["report"], began=asked["began"])
    batches = {"bare": planned, "step": drawn, "layout": laid_out}[asked["form"]]
    loop(asked, batches(asked))


if __name__ == "__main__":
    main()
