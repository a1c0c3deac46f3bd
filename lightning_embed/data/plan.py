"""From documents' lengths to global batches: how long documents are cut, which windows share a row
and a batch, and which process has which rows.

A plan knows lengths alone; rows are filled with tokens in `batch.py`.

Step by step, with max_length 4 and documents of 3 and 6 targets:

1. windows    doc 0: <s> a b | targets a b </s>          -> one window of 3
              doc 1: <s> c d e f g | targets c d e f g </s> -> windows of 4 and 2
2. rows       padded: one window a row, as wide as the next of `widths`: 3 -> 4, 4 -> 4, 2 -> 2
              packed: as many windows as fit into the widest: 4, 3, 2 and 1 lie as (4), (3 1), (2)
3. plan       rows of one width form global batches; the order is a pure function of
              (lengths, settings, seed, epoch), so it is the same on 1, 2 or 8 processes
4. shares     a global batch's rows are dealt out to its micro-batches (ranks x accumulation)

An epoch has every window exactly once, or those that a mixture draws (`mixture.py`), and always the
same number of batches, which is what lets a run go on by counting them. Padded, the number follows
from how many windows each width has. Packed, which *lengths* share a row is decided without a seed;
each epoch draws anew which window of that length takes the place, so neighbours change and the
number of rows does not.

Every rank gets the same number of micro-batches of the same shape; a row nobody has is all padding
and contributes 0.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from lightning_embed.errors import UserError

Layout = Literal["padded", "packed"]


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

    def draw(self, targets: float) -> "Windows":
        """A draw of about so many targets, always the same; at least one window."""
        order = np.random.default_rng(0).permutation(len(self))
        taken = np.cumsum(self.targets[order]) <= targets
        taken[0] = True
        return Windows(*(column[order[taken]] for column in self))


def eighths(max_length: int) -> list[int]:
    """The widths of rows where nobody names any."""
    step = max(1, max_length // 8)
    return sorted({*range(step, max_length, step), max_length})


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
    # Narrow integers and early deletions: at 10 million documents each column counts.
    targets = _narrow(np.maximum(np.diff(offsets) - 1, 0))
    stride = max_length - overlap
    count = np.where(targets > 0, 1 + -(-np.maximum(targets - max_length, 0) // stride), 0)
    document = np.repeat(_numbers(len(targets)), count)
    index = _ranges(np.zeros_like(count), count)
    del count
    begin = index.astype(targets.dtype) * stride
    length = np.minimum(max_length, targets[document] - begin).astype(np.int32)
    del targets
    # All zero without an overlap, and then never written: untouched zeros take no memory.
    context = np.zeros(len(index), np.int32)
    if overlap:
        context[index > 0] = overlap
    del index
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


def _ranges(first: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """first[0], first[0] + 1, ... (sizes[0] of them), then first[1] and so on."""
    numbers = _numbers(int(sizes.sum()))
    shift = first - (np.cumsum(sizes, dtype=np.int64) - sizes)
    numbers += np.repeat(shift.astype(numbers.dtype), sizes)
    return numbers


def _bounds(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])


def pack(lengths: np.ndarray, width: int) -> np.ndarray:
    """The row `(N,)` of each length, by best fit; `lengths` are sorted descending.

    Equal lengths are placed together, so that millions of windows take no longer than there are
    pairs of a length and a free space.
    """
    row = np.empty(len(lengths), np.int64)
    free: dict[int, list[int]] = {}  # rows by their free space
    spaces: list[int] = []  # its keys, sorted ascending
    made = 0

    def keep(space: int, rows: list[int]) -> None:
        if space and rows:
            if space not in free:
                insort(spaces, space)
            free.setdefault(space, []).extend(rows)

    negative, places, counts = np.unique(-lengths, return_index=True, return_counts=True)
    for length, at, count in zip((-negative).tolist(), places.tolist(), counts, strict=True):
        left = int(count)
        while left:
            found = bisect_left(spaces, length)
            space = spaces[found] if found < len(spaces) else width
            each = space // length
            wanted = -(-left // each)
            if found < len(spaces):
                rows = free[space][:wanted]
                del free[space][:wanted]
                if not free[space]:
                    del free[space], spaces[found]
            else:
                rows = list(range(made, made + wanted))
                made += wanted
            placed = min(left, each * len(rows))
            row[at : at + placed] = np.repeat(rows, each)[:placed]
            full, rest = divmod(placed, each)
            keep(space - each * length, rows[:full])
            if rest:
                keep(space - rest * length, rows[full:])
            at, left = at + placed, left - placed
    return row


@dataclass(frozen=True)
class BatchSettings:
    """What a global batch may hold.

    Args:
        tokens: positions (rows x width), padding included.
        widths: the widths rows are padded to, sorted ascending; the last is the longest window.
        rows: rows at most, whatever their width; None leaves it to `tokens`.
        layout: "padded" has one window a row, "packed" as many as fit into the widest row.
    """

    tokens: int
    widths: tuple[int, ...]
    rows: int | None = None
    layout: Layout = "padded"

    def __post_init__(self) -> None:
        if not self.widths or list(self.widths) != sorted(set(self.widths)) or self.widths[0] < 1:
            raise UserError(
                f"widths must be positive and sorted ascending, not {list(self.widths)};"
                " change --data.widths"
            )
        if self.tokens < self.widths[-1]:
            raise UserError(
                f"a batch of {self.tokens} tokens cannot hold one row of {self.widths[-1]};"
                " raise --data.tokens_per_batch or lower --data.max_length"
            )
        if self.rows is not None and self.rows < 1:
            raise UserError(f"a batch needs a row, not {self.rows}; change --data.rows_per_batch")

    def rows_at(self, width: int) -> int:
        rows = self.tokens // width
        return rows if self.rows is None else min(rows, self.rows)


class Draw(NamedTuple):
    """Which windows an epoch has, where it has not each one once."""

    windows: np.ndarray  # (D,) window numbers; one may come several times
    room: np.ndarray  # (D,) positions kept for each, the same ones in every epoch


class MicroBatch(NamedTuple):
    """One process' share of a global batch: what a loader's worker is asked for."""

    windows: np.ndarray  # window numbers, row after row
    row: np.ndarray  # the row of each
    n_rows: int  # rows of the padded batch; those without a window are all padding
    width: int
    global_targets: int
    global_positions: int
    global_pairs: int


class Plan(NamedTuple):
    """An epoch's global batches."""

    order: np.ndarray  # (N,) window numbers, row after row, batch after batch
    row_bounds: np.ndarray  # (rows + 1,) where each row begins in `order`
    bounds: np.ndarray  # (batches + 1,) where each batch begins among the rows
    widths: np.ndarray  # (batches,)
    full_rows: np.ndarray  # (batches,) rows a full batch of this width has
    targets: np.ndarray  # (batches,) real targets
    pairs: np.ndarray  # (batches,) query-key pairs

    def __len__(self) -> int:
        return len(self.widths)

    def positions(self, n_micro: int = 1) -> int:
        """Positions of the whole epoch in `n_micro` micro-batches a step, padding included."""
        return int((-(-self.full_rows // n_micro) * n_micro * self.widths).sum())

    def windows_of(self, batch: int) -> np.ndarray:
        """All windows of a global batch."""
        begin, end = self.row_bounds[self.bounds[[batch, batch + 1]]]
        return self.order[begin:end]

    def micro_batch(self, batch: int, index: int, n_micro: int) -> MicroBatch:
        """Share number `index` of `n_micro` of a global batch; every row is in exactly one."""
        rows = np.arange(self.bounds[batch], self.bounds[batch + 1])[index::n_micro]
        sizes = self.row_bounds[rows + 1] - self.row_bounds[rows]
        per_micro = -(-int(self.full_rows[batch]) // n_micro)
        width = int(self.widths[batch])
        return MicroBatch(
            self.order[_ranges(self.row_bounds[rows], sizes)],
            np.repeat(np.arange(len(rows)), sizes),
            per_micro,
            width,
            int(self.targets[batch]),
            per_micro * n_micro * width,
            int(self.pairs[batch]),
        )


def plan_epoch(
    windows: Windows,
    settings: BatchSettings,
    *,
    seed: int,
    epoch: int,
    shuffle: bool = True,
    draw: Draw | None = None,
) -> Plan:
    """Global batches of rows of one width; a pure function of its arguments.

    Rows are drawn in a random order, so a padded batch's windows are alike in length and in nothing
    else, and batches come in a random order too. What does not fill a batch moves up to the next
    width, so an epoch has at most one partial batch. Without `shuffle` the longest come first. Of a
    `draw` the room alone decides how many batches there are.
    """
    room = windows.length if draw is None else draw.room
    longest = int(windows.length.max(initial=0))
    if longest > settings.widths[-1]:
        raise UserError(f"a window of {longest} fits none of --data.widths {list(settings.widths)}")
    order = _numbers(len(room))
    rng = np.random.default_rng([seed, epoch])
    if shuffle:
        rng.shuffle(order)
    if settings.layout == "packed":
        order = order[np.argsort(-room[order], kind="stable")]
        row = pack(room[order], settings.widths[-1])
        order, sizes = order[np.argsort(row, kind="stable")], np.bincount(row)
        classes = np.full(len(sizes), len(settings.widths) - 1)
        rows = rng.permutation(len(sizes)) if shuffle else np.arange(len(sizes))[::-1]
    else:
        classes = np.zeros(len(order), np.min_scalar_type(len(settings.widths)))
        for width in settings.widths[:-1]:
            classes += room > width
        classes = classes[order]
        rows = np.argsort(classes, kind="stable").astype(order.dtype)
        sizes = np.ones(len(order), np.uint8)
    batch_sizes, widths = _cut_batches(classes[rows], settings)
    del classes
    batches = rng.permutation(len(widths)) if shuffle else np.arange(len(widths))[::-1]
    first = (np.cumsum(batch_sizes) - batch_sizes)[batches]
    bounds, widths = _bounds(batch_sizes[batches]), widths[batches]
    rows = rows[_ranges(first, batch_sizes[batches])]
    if settings.layout == "packed":
        order = order[_ranges((np.cumsum(sizes) - sizes)[rows], sizes[rows])]
    else:
        order = order[rows]
    row_bounds = _narrow(_bounds(sizes[rows]))
    del rows, sizes
    if draw is not None:
        order = draw.windows[order]
    edges = row_bounds[bounds]
    lengths = windows.length[order]
    squares, positions = (_sums(x, edges) for x in (np.square(lengths, dtype=np.int64), lengths))
    full_rows = np.array([settings.rows_at(width) for width in settings.widths], np.int64)
    return Plan(
        order,
        row_bounds,
        bounds,
        widths,
        full_rows[np.searchsorted(settings.widths, widths)],
        _sums(windows.targets[order], edges),
        (squares + positions) // 2,
    )


def _sums(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """int64 sums of values[edges[0]:edges[1]] and so on, none of them empty."""
    if len(edges) < 2:
        return np.zeros(0, np.int64)
    return np.add.reduceat(values, edges[:-1], dtype=np.int64)


def _cut_batches(classes: np.ndarray, settings: BatchSettings) -> tuple[np.ndarray, np.ndarray]:
    """Rows and width of each batch, of rows sorted by `classes`, the numbers of their widths."""
    ends = np.searchsorted(classes, np.arange(len(settings.widths)), side="right")
    sizes: list[int] = []
    widths: list[int] = []
    at = 0
    for number, (width, end) in enumerate(zip(settings.widths, ends.tolist(), strict=True)):
        rows = settings.rows_at(width)
        full, rest = divmod(end - at, rows)
        sizes += [rows] * full
        if rest and number == len(settings.widths) - 1:
            sizes.append(rest)
        widths += [width] * (len(sizes) - len(widths))
        at = sum(sizes)
    return np.array(sizes, np.int64), np.array(widths, np.int64)
