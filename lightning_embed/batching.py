"""From documents to padded batches: windows, the plan of global batches, collate.

Knows: how long documents are cut, which windows share a global batch, which of its rows are whose,
how rows are padded. Leaves to others: where tokens come from (`datamodule.py`).

The way, with max_length 4 and documents of 3 and 6 targets:

1. windows    doc 0: <s> a b | targets a b </s>          -> one window of 3
              doc 1: <s> c d e f g | targets c d e f g </s> -> windows of 4 and 2
2. plan       windows of like length form global batches; order is a pure function of
              (lengths, settings, seed, epoch), so it is the same on 1, 2 or 8 processes
3. shares     a global batch's rows are dealt out to its micro-batches (ranks x accumulation)
4. collate    rows right-padded with 1 to the batch's width, targets with IGNORE_INDEX

Every rank gets the same number of micro-batches of the same shape; a row nobody has is all padding
and contributes 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_embed.special_tokens import IGNORE_INDEX, PAD_ID


class Windows(NamedTuple):
    """One entry a window, N windows; a window's first `context` positions have no target."""

    start: np.ndarray  # (N,) int64, where its input begins in the token array
    length: np.ndarray  # (N,) int32, positions: inputs, and targets one further on
    context: np.ndarray  # (N,) int32
    document: np.ndarray  # (N,) int32, int64 where that is too small

    def __len__(self) -> int:
        return len(self.start)

    @property
    def targets(self) -> np.ndarray:
        """(N,) real targets of each window."""
        return self.length - self.context


def cut_windows(offsets: np.ndarray, max_length: int, overlap: int = 0) -> Windows:
    """Cut documents into windows of at most `max_length` positions, every token a target once.

    Args:
        offsets: `(documents + 1,)` where each document's tokens begin in the token array.
        max_length: positions in a window.
        overlap: positions at the start of every window but a document's first that are there as
            context only, so that later windows do not begin blind.
    """
    if max_length < 2:
        raise ValueError(
            f"max_length must be at least 2, not {max_length}; change --data.max_length"
        )
    if not 0 <= overlap < max_length:
        raise ValueError(
            f"overlap {overlap} must be at least 0 and below max_length {max_length};"
            " change --data.eval_overlap"
        )
    # Narrow integers and early deletions: at 10 million documents each column counts.
    targets = _narrow(np.maximum(np.diff(offsets) - 1, 0))
    stride = max_length - overlap
    count = np.where(targets > 0, 1 + -(-np.maximum(targets - max_length, 0) // stride), 0)
    document = np.repeat(_numbers(len(targets)), count)
    index = _numbers(len(document))
    index -= np.repeat((np.cumsum(count) - count).astype(index.dtype), count)
    del count
    begin = index.astype(targets.dtype) * stride
    length = np.minimum(max_length, targets[document] - begin).astype(np.int32)
    del targets
    # All zero without an overlap, and then never written: untouched zeros take no memory.
    context = np.zeros(len(index), np.int32)
    if overlap:
        context[index > 0] = overlap
    start = offsets[document].astype(np.int64, copy=False)
    start += begin
    return Windows(start, length, context, document)


def _narrow(values: np.ndarray) -> np.ndarray:
    """The same numbers in int32 where it holds them, which is half of numpy's int64."""
    small = values.max(initial=0) <= np.iinfo(np.int32).max
    return values.astype(np.int32) if small else values


def _numbers(count: int) -> np.ndarray:
    """0, 1, ..., count - 1, narrow where they fit."""
    return np.arange(count, dtype=np.int32 if count <= np.iinfo(np.int32).max else np.int64)


@dataclass(frozen=True)
class BatchSettings:
    """What a global batch may hold.

    Args:
        tokens: positions (rows x width), padding included.
        widths: the widths rows are padded to, rising; the last is the longest window.
        rows: rows at most, whatever their width; None leaves it to `tokens`.
    """

    tokens: int
    widths: tuple[int, ...]
    rows: int | None = None

    def __post_init__(self) -> None:
        if not self.widths or list(self.widths) != sorted(set(self.widths)) or self.widths[0] < 1:
            raise ValueError(f"widths must rise, not {list(self.widths)}; change --data.widths")
        if self.tokens < self.widths[-1]:
            raise ValueError(
                f"a batch of {self.tokens} tokens cannot hold one row of {self.widths[-1]};"
                " raise --data.tokens_per_batch or lower --data.max_length"
            )
        if self.rows is not None and self.rows < 1:
            raise ValueError(f"a batch needs a row, not {self.rows}; change --data.rows_per_batch")

    def rows_at(self, width: int) -> int:
        rows = self.tokens // width
        return rows if self.rows is None else min(rows, self.rows)


class MicroBatch(NamedTuple):
    """One process' share of a global batch: what a loader's worker is asked for."""

    rows: np.ndarray  # window numbers
    n_rows: int  # rows of the padded batch; those without a window are all padding
    width: int
    global_targets: int
    global_positions: int


class Plan(NamedTuple):
    """An epoch's global batches."""

    order: np.ndarray  # (N,) window numbers, batch after batch
    bounds: np.ndarray  # (batches + 1,) where each batch begins in `order`
    widths: np.ndarray  # (batches,)
    full_rows: np.ndarray  # (batches,) rows a full batch of this width has
    targets: np.ndarray  # (batches,) real targets

    def __len__(self) -> int:
        return len(self.widths)

    def positions(self, n_micro: int = 1) -> int:
        """Positions of the whole epoch in `n_micro` micro-batches a step, padding included."""
        return int((-(-self.full_rows // n_micro) * n_micro * self.widths).sum())

    def micro_batch(self, batch: int, index: int, n_micro: int) -> MicroBatch:
        """Share number `index` of `n_micro` of a global batch; every row is in exactly one."""
        rows = self.order[self.bounds[batch] : self.bounds[batch + 1]][index::n_micro]
        per_micro = -(-int(self.full_rows[batch]) // n_micro)
        width = int(self.widths[batch])
        return MicroBatch(
            rows, per_micro, width, int(self.targets[batch]), per_micro * n_micro * width
        )


def plan_epoch(
    windows: Windows, settings: BatchSettings, *, seed: int, epoch: int, shuffle: bool = True
) -> Plan:
    """Global batches of windows of like length; a pure function of its arguments.

    Windows are drawn in a random order, so a batch's rows are alike in length and in nothing else,
    and batches come in a random order too. What does not fill a batch moves up to the next width,
    so an epoch has at most one partial batch. Without `shuffle` the longest come first.
    """
    longest = int(windows.length.max(initial=0))
    if longest > settings.widths[-1]:
        raise ValueError(
            f"a window of {longest} fits none of --data.widths {list(settings.widths)}"
        )
    order = _numbers(len(windows))
    rng = np.random.default_rng([seed, epoch])
    if shuffle:
        rng.shuffle(order)
    # Windows of one width after another, each kind in the order drawn.
    kinds = np.zeros(len(order), np.min_scalar_type(len(settings.widths)))
    for width in settings.widths[:-1]:
        kinds += windows.length > width
    kinds = kinds[order]
    order = order[np.argsort(kinds, kind="stable")]
    ends = np.cumsum([np.count_nonzero(kinds == n) for n in range(len(settings.widths))])
    del kinds
    bounds, widths, full_rows, at = [np.zeros(1, np.int64)], [], [], 0
    for number, (width, end) in enumerate(zip(settings.widths, ends.tolist(), strict=True)):
        rows = settings.rows_at(width)
        full = (end - at) // rows
        if number == len(settings.widths) - 1:
            full = -(-(end - at) // rows)
        bounds.append(np.minimum(at + rows * np.arange(1, full + 1), end))
        widths.append(np.full(full, width))
        full_rows.append(np.full(full, rows))
        at += rows * full
    edges = np.concatenate(bounds)
    sizes = np.diff(edges)
    batches = rng.permutation(len(sizes)) if shuffle else np.arange(len(sizes))[::-1]
    first, sizes = edges[:-1][batches], sizes[batches]
    bounds_array = np.concatenate([[0], np.cumsum(sizes)])
    place = _numbers(len(order))  # in the order by width, of each window in the order of batches
    place += np.repeat((first - bounds_array[:-1]).astype(place.dtype), sizes)
    order = order[place]
    del place
    targets = np.zeros(0, np.int64)
    if len(sizes):
        targets = np.add.reduceat(windows.targets[order], bounds_array[:-1], dtype=np.int64)
    return Plan(
        order,
        bounds_array,
        np.concatenate(widths)[batches],
        np.concatenate(full_rows)[batches],
        targets,
    )


class Batch(NamedTuple):
    """A padded micro-batch of B rows and T positions.

    `global_targets` and `global_positions` are those of the whole global batch (all ranks and
    micro-batches), so that a loss can be divided and throughput counted without asking anyone.
    """

    ids: Tensor  # (B, T) int64, padded with PAD_ID
    targets: Tensor  # (B, T) int64, IGNORE_INDEX where there is nothing to predict
    group: Tensor  # (B,) int64, number of the source the row came from
    n_bytes: Tensor  # (B,) int64, UTF-8 bytes the row's targets stand for
    global_targets: int
    global_positions: int


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
        ids = np.full((micro.n_rows, micro.width), PAD_ID, dtype=np.int64)
        targets = np.full((micro.n_rows, micro.width), IGNORE_INDEX, dtype=np.int64)
        group = np.zeros(micro.n_rows, dtype=np.int64)
        n_bytes = np.zeros(micro.n_rows, dtype=np.int64)
        for row, window in enumerate(micro.rows):
            start, length = int(self.windows.start[window]), int(self.windows.length[window])
            context = int(self.windows.context[window])
            piece = self.tokens[start : start + length + 1]
            ids[row, :length] = piece[:-1]
            targets[row, context:length] = piece[context + 1 :]
            group[row] = self.group[self.windows.document[window]]
            n_bytes[row] = self._bytes(window)
        check_ids(ids, self.vocab_size)
        check_ids(targets, self.vocab_size)
        return Batch(
            torch.from_numpy(ids),
            torch.from_numpy(targets),
            torch.from_numpy(group),
            torch.from_numpy(n_bytes),
            micro.global_targets,
            micro.global_positions,
        )


def check_ids(ids: np.ndarray, vocab_size: int) -> None:
    """Refuse ids outside the vocabulary before they reach a device.

    Raises:
        ValueError: naming the id and the vocabulary.
    """
    if ids.size and int(ids.max()) >= vocab_size:
        raise ValueError(
            f"token id {int(ids.max())} is outside the model's vocabulary of {vocab_size};"
            " the data was prepared with another tokenizer: check --data.tokenizer"
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
    ) -> None:
        self.rows, self.settings, self.seed, self.shuffle = rows, settings, seed, shuffle
        self.rank, self.world_size, self.accumulate = rank, world_size, accumulate
        self.num_workers, self.pin_memory = num_workers, pin_memory
        self.start = 0  # micro-batches of this epoch already done, when a run goes on
        self.sampler = self  # Lightning calls set_epoch on a loader's `sampler` only
        self.batch_sampler = None  # and looks for one
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        if getattr(self, "epoch", None) != epoch:
            self.epoch = epoch
            self.plan = plan_epoch(
                self.rows.windows, self.settings, seed=self.seed, epoch=epoch, shuffle=self.shuffle
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
        yield from DataLoader(
            self.rows,
            batch_size=None,
            sampler=self.micro_batches(start),
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            generator=torch.Generator(),
        )
