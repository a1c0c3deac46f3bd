"""From planned micro-batches to tensors: rows are filled with tokens and repacked.

Which windows form a batch is decided in `plan.py`; `loader.py` asks for one batch after the other.

Rows are right-padded with 1 to the batch's width, targets with IGNORE_INDEX. Where the windows
would fit into fewer or narrower rows, the batch also says how (`repack`), and the network works on
those rows alone, so that hardly anything is computed for padding.
"""

import os
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_embed.data.packing import pack
from lightning_embed.data.plan import MicroBatch
from lightning_embed.data.windows import Places, Windows
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


class Share(NamedTuple):
    """A `MicroBatch` with all that is needed to fill it beside the tokens: what a worker is sent.

    The arrays are `(n,)`, an entry for each of its windows.
    """

    micro: MicroBatch
    places: Places
    group: np.ndarray  # int64, number of the document's source
    n_bytes: np.ndarray  # int64, UTF-8 bytes that the window's targets stand for


class Filler(Dataset[Batch]):
    """Turns a `Share` into a `Batch`.

    Pickled for a worker process it is the path of a file of tokens, which the worker maps when it
    fills its first batch: a memory map itself would be pickled with all its data.

    Args:
        tokens: all documents' ids in a row, usually memory-mapped.
        vocab_size: ids from here on are refused.
    """

    def __init__(self, tokens: np.ndarray, vocab_size: int) -> None:
        self.vocab_size, self.dtype = vocab_size, tokens.dtype
        self.file, self.size = _file_of(tokens), tokens.nbytes
        self.tokens = tokens

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if self.file is not None:
            del state["tokens"]
        return state

    @cached_property
    def tokens(self) -> np.ndarray:
        assert self.file is not None
        try:
            tokens = np.memmap(self.file, dtype=self.dtype, mode="r")
        except OSError as error:
            raise UserError(
                f"{self.file} is gone or cannot be read ({error.strerror}) by a worker process:"
                " was the folder cleaned? go on with --ckpt_path last, which makes it anew"
            ) from None
        if tokens.nbytes != self.size:
            raise UserError(
                f"{self.file} is another file than when the run began: go on with --ckpt_path last"
            )
        return tokens

    def __getitem__(self, share: Share) -> Batch:
        micro, places = share.micro, share.places
        n_rows, width = micro.n_rows, micro.width
        layout = lay_out(places.length, micro.row, n_rows, width)
        ids = np.full(n_rows * width, PAD_ID, dtype=np.int64)
        targets = np.full(n_rows * width, IGNORE_INDEX, dtype=np.int64)
        group = np.zeros(n_rows, dtype=np.int64)
        last = np.full(n_rows, -1, dtype=np.int64)
        n_bytes = np.zeros(n_rows, dtype=np.int64)
        lies = zip(places.start, places.length, places.context, layout.begin, strict=True)
        for start, length, context, to in lies:
            piece = self.tokens[start : start + length + 1]
            ids[to : to + length] = piece[:-1]
            targets[to + context : to + length] = piece[context + 1 :]
        group[micro.row] = share.group  # of a row's windows the last one stays
        last[micro.row] = micro.windows
        np.add.at(n_bytes, micro.row, share.n_bytes)
        check_ids(ids, self.vocab_size, self.file or "")
        check_ids(targets, self.vocab_size, self.file or "")
        repack, segments = repack_rows(places.length, layout, n_rows, width)
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


def _file_of(tokens: np.ndarray) -> str | None:
    """The file that these are mapped from, if they are all of it."""
    name = getattr(tokens, "filename", None)
    try:
        whole = name is not None and os.path.getsize(name) == tokens.nbytes
    except OSError:  # it was removed, and stays mapped here
        return None
    return str(name) if whole else None


class PaddedRows:
    """Where the windows of micro-batches lie, and the batches they become.

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
        self.filler, self.windows, self.group = Filler(tokens, vocab_size), windows, group
        self.n_bytes, self.offsets = n_bytes, offsets

    def bytes_of(self, places: Places) -> list[int]:
        """A document's bytes are shared among its targets so that the windows' shares add up."""
        begins = self.offsets[places.document]
        n_targets = (self.offsets[places.document + 1] - begins - 1).tolist()
        begin = places.start - begins
        end, begin = (begin + places.length).tolist(), (begin + places.context).tolist()
        total = self.n_bytes[places.document].tolist()  # Python's numbers, which hold the product
        return [
            n * b // targets - n * a // targets
            for n, a, b, targets in zip(total, begin, end, n_targets, strict=True)
        ]

    def share(self, micro: MicroBatch) -> Share:
        places = self.windows[micro.windows]
        n_bytes = np.array(self.bytes_of(places), np.int64)
        return Share(micro, places, self.group[places.document], n_bytes)

    def __getitem__(self, micro: MicroBatch) -> Batch:
        return self.filler[self.share(micro)]


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
