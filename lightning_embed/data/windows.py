"""How documents are cut into windows, and where each window lies in the token array.

A window is known by its number; see `plan.py` for an example, and for what becomes of windows.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from lightning_embed.errors import UserError

BLOCK = 100_000  # windows looked at at once: some 80 bytes each while they are


class Places(NamedTuple):
    """Some windows, an entry each; a window's first `context` positions have no target."""

    start: np.ndarray  # (n,) int64, where its input begins in the token array
    length: np.ndarray  # (n,) int64, positions: inputs, and targets one further on
    context: np.ndarray  # (n,) int64
    document: np.ndarray  # (n,) int64

    @property
    def targets(self) -> np.ndarray:
        """(n,) real targets of each window."""
        return self.length - self.context


@dataclass(frozen=True, eq=False)
class Windows:
    """N windows, numbered document after document.

    Only the number of each document's first window is kept, 4 bytes a document; where a window
    lies follows from its number. `windows[numbers]` and the columns `start`, `length`, `context`,
    `document` and `targets` compute it.

    Args:
        offsets: `(documents + 1,)` where each document's tokens begin in the token array.
        first: `(documents + 1,)` number of each document's first window, and of all windows.
        max_length: positions of a window at most.
        overlap: positions at the start of every window but a document's first that are context.
        chosen: `(N,)` numbers of the windows of a draw; None has them all.
    """

    offsets: np.ndarray
    first: np.ndarray
    max_length: int
    overlap: int = 0
    chosen: np.ndarray | None = None

    def __len__(self) -> int:
        return int(self.first[-1]) if self.chosen is None else len(self.chosen)

    def __getitem__(self, numbers: np.ndarray) -> Places:
        if self.chosen is not None:
            numbers = self.chosen[numbers]
        alike = numbers.astype(self.first.dtype)  # else all of `first` is converted
        document = np.searchsorted(self.first, alike, side="right") - 1
        index = numbers - self.first[document].astype(np.int64)
        begin = index * (self.max_length - self.overlap)
        offset = self.offsets[document].astype(np.int64, copy=False)
        targets = self.offsets[document + 1] - offset - 1
        context = np.where(index > 0, self.overlap, 0)
        return Places(
            offset + begin, np.minimum(self.max_length, targets - begin), context, document
        )

    def blocks(self) -> Iterator[Places]:
        """All windows, in pieces that take little memory."""
        for begin in range(0, len(self), BLOCK):
            yield self[np.arange(begin, min(begin + BLOCK, len(self)))]

    def column(self, of: Callable[[Places], np.ndarray], dtype: DTypeLike) -> np.ndarray:
        """`(N,)` one figure of each window."""
        found, at = np.empty(len(self), dtype), 0
        for places in self.blocks():
            values = of(places)
            found[at : at + len(values)] = values
            at += len(values)
        return found

    @property
    def start(self) -> np.ndarray:
        return self.column(lambda places: places.start, np.int64)

    @property
    def length(self) -> np.ndarray:
        return self.column(lambda places: places.length, np.int32)

    @property
    def context(self) -> np.ndarray:
        return self.column(lambda places: places.context, np.int32)

    @property
    def document(self) -> np.ndarray:
        return self.column(lambda places: places.document, holding(len(self.first)))

    @property
    def targets(self) -> np.ndarray:
        """`(N,)` real targets of each window."""
        return self.column(lambda places: places.targets, np.int32)

    def only(self, numbers: np.ndarray) -> "Windows":
        """Some of them, numbered anew."""
        numbers = narrow(numbers)
        return replace(self, chosen=numbers if self.chosen is None else self.chosen[numbers])

    def draw(self, targets: float) -> "Windows":
        """A draw of about so many targets, always the same; at least one window."""
        order = np.random.default_rng(0).permutation(len(self))
        taken = np.cumsum(self.targets[order], dtype=np.int64) <= targets
        taken[0] = True
        return self.only(order[taken])


def cut_windows(offsets: np.ndarray, max_length: int, overlap: int = 0) -> Windows:
    """Cut documents into windows of at most `max_length` positions, every token a target once.

    Args:
        offsets: `(documents + 1,)` where each document's tokens begin in the token array.
        max_length: positions in a window.
        overlap: positions at the start of every window but a document's first that are there as
            context only, so that later windows do not begin blind.
    """
    if max_length < 2:
        raise UserError(
            f"max_length must be at least 2, not {max_length}; change --data.max_length"
        )
    if not 0 <= overlap < max_length:
        raise UserError(
            f"overlap {overlap} must be at least 0 and below max_length {max_length};"
            " change --data.eval_overlap"
        )
    stride = max_length - overlap
    first = np.zeros(len(offsets), holding(int(offsets[-1]) - int(offsets[0])))
    at = 0  # windows so far
    for begin in range(0, len(offsets) - 1, BLOCK):
        targets = np.diff(offsets[begin : begin + BLOCK + 1]).astype(np.int64) - 1
        count = np.where(targets > 0, 1 + -(-np.maximum(targets - max_length, 0) // stride), 0)
        first[begin + 1 : begin + 1 + len(count)] = at + np.cumsum(count)
        at += int(count.sum())
    return Windows(offsets, first, max_length, overlap)


def holding(largest: int) -> np.dtype:
    """The narrowest of uint16, int32 and int64 for numbers up to `largest`."""
    if largest <= np.iinfo(np.uint16).max:
        return np.dtype(np.uint16)
    return np.dtype(np.int32 if largest <= np.iinfo(np.int32).max else np.int64)


def narrow(values: np.ndarray) -> np.ndarray:
    """The same numbers in int32 where it holds them, which is half of numpy's int64."""
    small = values.max(initial=0) <= np.iinfo(np.int32).max
    return values.astype(np.int32) if small else values


def numbered(count: int) -> np.ndarray:
    """0, 1, ..., count - 1, narrow where they fit."""
    return np.arange(count, dtype=np.int32 if count <= np.iinfo(np.int32).max else np.int64)


def ranges(first: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """first[0], first[0] + 1, ... (sizes[0] of them), then first[1] and so on."""
    shift = first - (np.cumsum(sizes, dtype=np.int64) - sizes)
    return np.arange(int(sizes.sum())) + np.repeat(shift, sizes)
