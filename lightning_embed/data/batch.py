"""From planned micro-batches to tensors: collate, and the loader that walks a plan.

Which windows form a batch is decided in `plan.py`; `datamodule.py` brings both together.

Rows are right-padded with 1 to the batch's width, targets with IGNORE_INDEX. Where the windows
would fit into fewer or narrower rows, the batch also says how (`repack`), and the network works on
those rows alone, so that hardly anything is computed for padding.
"""

import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_embed.data.mixture import Mixture
from lightning_embed.data.plan import BatchSettings, MicroBatch, Windows, pack, plan_epoch
from lightning_embed.errors import UserError
from lightning_embed.model.segments import Segments
from lightning_embed.special_tokens import IGNORE_INDEX, PAD_ID


class Batch(NamedTuple):
    """A padded micro-batch of B rows and T positions.

    The `global_` counts are those of the whole global batch (all ranks and micro-batches), so that
    a loss can be divided and throughput counted without asking anyone. `segments` tells which
    positions of a row belong together; with `repack` it is about R rows of W positions, fewer in
    all, that hold the same tokens, `repack` saying where in the flattened batch each comes from.
    """

    ids: Tensor  # (B, T) int64, padded with PAD_ID
    targets: Tensor  # (B, T) int64, IGNORE_INDEX where there is nothing to predict
    group: Tensor  # (B,) int64, number of the source the row's last window came from
    n_bytes: Tensor  # (B,) int64, UTF-8 bytes the row's targets stand for
    global_targets: int
    global_positions: int
    global_pairs: int = 0  # query and key, both real and the key not later
    segments: Segments | None = None
    repack: Tensor | None = None  # (R, W) int64
    window: Tensor | None = None  # (B,) int64, number of the row's last window; -1 where none is


class RowLayout(NamedTuple):
    """How windows lie in rows, one after the other, what is left over at the end."""

    begin: np.ndarray  # (windows,) where each begins in the flattened rows
    segments: Segments


def lay_out(lengths: np.ndarray, row: np.ndarray, n_rows: int, width: int) -> RowLayout:
    """Put windows of these lengths into these rows, sorted ascending."""
    used = np.bincount(row, lengths, minlength=n_rows).astype(np.int64)
    before = np.cumsum(used) - used  # tokens in earlier rows
    begin = row * width + np.cumsum(lengths) - lengths - before[row]
    left_over = (np.arange(n_rows) * width + used)[used < width]
    begins = np.sort(np.concatenate([begin, left_over]))
    bounds = np.append(begins, n_rows * width)
    start = np.repeat(begins % width, np.diff(bounds)).reshape(n_rows, width)
    return RowLayout(
        begin,
        Segments(
            torch.from_numpy(start.astype(np.int32)), torch.from_numpy(bounds.astype(np.int32))
        ),
    )


class PaddedRows(Dataset[Batch]):
    """Turns a `MicroBatch` into a `Batch`.

    Args:
        tokens: all documents' ids in a row, usually memory-mapped.
        windows: where each window lies.
        group: `(documents,)` number of each document's source.
        n_bytes: `(documents,)` UTF-8 bytes of each document.
        offsets: `(documents + 1,)` where each document begins in `tokens`.
        vocab_size: ids from here on are refused.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        windows: Windows,
        group: np.ndarray,
        n_bytes: np.ndarray,
        offsets: np.ndarray,
        vocab_size: int,
    ) -> None:
        self.tokens, self.windows, self.group = tokens, windows, group
        self.n_bytes, self.offsets, self.vocab_size = n_bytes, offsets, vocab_size

    def _bytes(self, window: int) -> int:
        """A document's bytes are shared among its targets so that the windows' shares add up."""
        document = self.windows.document[window]
        targets = int(self.offsets[document + 1] - self.offsets[document]) - 1
        begin = int(self.windows.start[window] - self.offsets[document])
        total, end = int(self.n_bytes[document]), begin + int(self.windows.length[window])
        begin += int(self.windows.context[window])
        return total * end // targets - total * begin // targets

    def __getitem__(self, micro: MicroBatch) -> Batch:
        n_rows, width = micro.n_rows, micro.width
        lengths = self.windows.length[micro.windows].astype(np.int64)
        layout = lay_out(lengths, micro.row, n_rows, width)
        ids = np.full(n_rows * width, PAD_ID, dtype=np.int64)
        targets = np.full(n_rows * width, IGNORE_INDEX, dtype=np.int64)
        group = np.zeros(n_rows, dtype=np.int64)
        last = np.full(n_rows, -1, dtype=np.int64)
        n_bytes = np.zeros(n_rows, dtype=np.int64)
        for window, row, to in zip(micro.windows, micro.row, layout.begin, strict=True):
            start, length = int(self.windows.start[window]), int(self.windows.length[window])
            context = int(self.windows.context[window])
            piece = self.tokens[start : start + length + 1]
            ids[to : to + length] = piece[:-1]
            targets[to + context : to + length] = piece[context + 1 :]
            group[row] = self.group[self.windows.document[window]]
            last[row] = window
            n_bytes[row] += self._bytes(window)
        file = str(getattr(self.tokens, "filename", ""))
        check_ids(ids, self.vocab_size, file)
        check_ids(targets, self.vocab_size, file)
        repack, segments = repack_rows(lengths, layout, n_rows, width)
        return Batch(
            torch.from_numpy(ids).view(n_rows, width),
            torch.from_numpy(targets).view(n_rows, width),
            torch.from_numpy(group),
            torch.from_numpy(n_bytes),
            micro.global_targets,
            micro.global_positions,
            micro.global_pairs,
            segments,
            repack,
            torch.from_numpy(last),
        )


def repack_rows(
    lengths: np.ndarray, layout: RowLayout, n_rows: int, width: int
) -> tuple[Tensor | None, Segments]:
    """`repack` and `segments` of the rows with fewest positions that hold the same windows.

    Rows are as wide as the batch or some eighths of that. No repack where nothing would be saved.
    Never a single row where there were more, nor rows of one position: a size of 1 would be
    compiled once more.
    """
    order = np.argsort(-lengths, kind="stable")
    fewest, row, narrow = n_rows, np.empty(0, np.int64), width
    for eighths in range(1, 9):
        space = -(-width * eighths // 8)
        if space < lengths.max(initial=2):
            continue
        tried = pack(lengths[order], space)
        rows = max(int(tried.max(initial=0)) + 1, min(2, n_rows))
        if rows * space < fewest * narrow:
            fewest, row, narrow = rows, tried, space
    if fewest * narrow == n_rows * width:
        return None, layout.segments
    by_row = np.argsort(row, kind="stable")
    order, row = order[by_row], row[by_row]
    close = lay_out(lengths[order], row, fewest, narrow)
    padding = np.ones(n_rows * width, bool)
    repack = np.full(fewest * narrow, -1, np.int64)
    for length, source, to in zip(lengths[order], layout.begin[order], close.begin, strict=True):
        padding[source : source + length] = False
        repack[to : to + length] = np.arange(source, source + length)
    repack[repack < 0] = int(padding.argmax())  # any: all read id 1 and no target
    return torch.from_numpy(repack).view(fewest, narrow), close.segments


def check_ids(ids: np.ndarray, vocab_size: int, file: str = "") -> None:
    """Refuse ids outside the vocabulary before they reach a device.

    Raises:
        UserError: naming the id, the vocabulary, and the file if there is one.
    """
    if ids.size and int(ids.max()) >= vocab_size:
        way_out = f"; if the file is damaged, delete the folder: {file}" if file else ""
        raise UserError(
            f"token id {int(ids.max())} is outside the model's vocabulary of {vocab_size};"
            f" the data was prepared with another tokenizer: check --data.tokenizer{way_out}"
        )


class PlanLoader:
    """Iterates one process' micro-batches of a plan, from any position on.

    Not a `DataLoader`, so that Lightning leaves its order alone; each pass over it makes one.

    Args:
        rows: what collates.
        settings, seed, shuffle: of the plan.
        rank, world_size: this process' share.
        accumulate: micro-batches a process has in each global batch.
        num_workers: data worker processes; 0 collates in this one.
        pin_memory: for copies to a GPU that do not wait.
        mixture: draws an epoch's windows; without one each comes once.
    """

    def __init__(
        self,
        rows: PaddedRows,
        settings: BatchSettings,
        *,
        seed: int,
        shuffle: bool,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
        num_workers: int = 0,
        pin_memory: bool = False,
        mixture: Mixture | None = None,
    ) -> None:
        self.rows, self.settings, self.seed, self.shuffle = rows, settings, seed, shuffle
        self.rank, self.world_size, self.accumulate = rank, world_size, accumulate
        self.num_workers, self.pin_memory, self.mixture = num_workers, pin_memory, mixture
        self.start = 0  # micro-batches of this epoch already done, when a run goes on
        self.waited = 0.0  # seconds that whoever iterates had to wait for batches
        self.sampler = self  # Lightning calls set_epoch on a loader's `sampler` only
        self.batch_sampler = None  # and looks for one
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        if getattr(self, "epoch", None) != epoch:
            self.epoch = epoch
            self.plan = plan_epoch(
                self.rows.windows,
                self.settings,
                seed=self.seed,
                epoch=epoch,
                shuffle=self.shuffle,
                draw=self.mixture.draw(epoch) if self.mixture else None,
            )

    def __len__(self) -> int:
        return len(self.plan) * self.accumulate

    def micro_batches(self, start: int = 0) -> Iterator[MicroBatch]:
        n_micro = self.world_size * self.accumulate
        for number in range(start, len(self)):
            batch, turn = divmod(number, self.accumulate)
            yield self.plan.micro_batch(batch, turn * self.world_size + self.rank, n_micro)

    def __iter__(self) -> Iterator[Batch]:
        # A generator: nothing starts before the first batch is asked for, when Lightning has set
        # the epoch. Our own torch generator keeps the loader from drawing a seed from the global
        # one, which would shift dropout.
        start, self.start = self.start, 0
        loader = DataLoader(
            self.rows,
            batch_size=None,
            sampler=self.micro_batches(start),
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            generator=torch.Generator(),
        )
        began = time.perf_counter()
        for batch in loader:
            self.waited += time.perf_counter() - began
            yield batch
            began = time.perf_counter()
