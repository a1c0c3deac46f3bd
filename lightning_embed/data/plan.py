"""From documents' lengths to global batches: how long documents are cut, which windows share a row
and a batch, and which process has which rows.

A plan knows lengths alone; rows are filled with tokens in `batch.py`.

Step by step, with max_length 4 and documents of 3 and 6 targets:

1. windows    doc 0: <s> a b | targets a b </s>          -> one window of 3
              doc 1: <s> c d e f g | targets c d e f g </s> -> windows of 4 and 2
2. rows       padded: one window a row, as wide as the next of `widths`: 3 -> 4, 4 -> 4, 2 -> 2
              packed: as many windows as fit into the widest (`packing.py`): 4, 3, 2 and 1 lie as
              (4), (3 1), (2)
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

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from lightning_embed.data.packing import pack
from lightning_embed.data.windows import BLOCK, Windows, holding, narrow, numbered, ranges
from lightning_embed.errors import UserError

Layout = Literal["padded", "packed"]


def eighths(max_length: int) -> list[int]:
    """The widths of rows where nobody names any."""
    step = max(1, max_length // 8)
    return sorted({*range(step, max_length, step), max_length})


def _bounds(sizes: np.ndarray) -> np.ndarray:
    return narrow(np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]))


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
    first_of_row: np.ndarray | None  # (rows + 1,) where each begins in `order`; None: one a row
    bounds: np.ndarray  # (batches + 1,) where each batch begins among the rows
    widths: np.ndarray  # (batches,)
    full_rows: np.ndarray  # (batches,) rows a full batch of this width has
    targets: np.ndarray  # (batches,) real targets
    pairs: np.ndarray  # (batches,) query-key pairs

    def __len__(self) -> int:
        return len(self.widths)

    def positions(self, n_micro: int = 1) -> int:
        """Positions of the whole epoch in `n_micro` micro-batches a step, padding included."""
        return int((-(-self.full_rows // n_micro) * n_micro * self.widths).sum(dtype=np.int64))

    def begin(self, rows: np.ndarray) -> np.ndarray:
        """Where these rows begin in `order`."""
        return rows if self.first_of_row is None else self.first_of_row[rows]

    def windows_of(self, batch: int) -> np.ndarray:
        """All windows of a global batch."""
        begin, end = self.begin(self.bounds[[batch, batch + 1]])
        return self.order[begin:end]

    def micro_batch(self, batch: int, index: int, n_micro: int) -> MicroBatch:
        """Share number `index` of `n_micro` of a global batch; every row is in exactly one."""
        rows = np.arange(self.bounds[batch], self.bounds[batch + 1])[index::n_micro]
        first = self.begin(rows)
        sizes = self.begin(rows + 1) - first
        per_micro = -(-int(self.full_rows[batch]) // n_micro)
        width = int(self.widths[batch])
        return MicroBatch(
            self.order[ranges(first, sizes)],
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
    lengths = windows.column(lambda places: places.length, holding(windows.max_length))
    longest = int(lengths.max(initial=0))
    if longest > settings.widths[-1]:
        raise UserError(f"a window of {longest} fits none of --data.widths {list(settings.widths)}")
    # Each array here has an entry a window: they are narrow, and used again where they can be.
    room = lengths if draw is None else draw.room
    order = numbered(len(room))
    rng = np.random.default_rng([seed, epoch])
    if shuffle:
        rng.shuffle(order)
    if settings.layout == "packed":
        order, first_of_row = _packed(order, room, settings.widths[-1])
        n_rows = len(first_of_row) - 1
        ends = np.array([0] * (len(settings.widths) - 1) + [n_rows])
        rows = rng.permutation(n_rows) if shuffle else np.arange(n_rows)[::-1]
    else:
        first_of_row = None
        rows, ends = _by_width(order, room, settings.widths)
    batch_sizes, widths = _cut_batches(ends, settings)
    batches = rng.permutation(len(widths)) if shuffle else np.arange(len(widths))[::-1]
    first = (np.cumsum(batch_sizes) - batch_sizes)[batches]
    batch_sizes, widths = batch_sizes[batches], widths[batches]
    bounds = _bounds(batch_sizes)
    if first_of_row is None:
        order, edges = _rearranged(rows, first, batch_sizes, order), bounds
    else:
        rows = _rearranged(rows, first, batch_sizes)
        sizes = np.diff(first_of_row)[rows]
        order = _rearranged(order, first_of_row[rows], sizes)
        first_of_row = _bounds(sizes)
        edges = first_of_row[bounds]
    if draw is not None:
        order = draw.windows[order]
    targets = lengths
    if windows.overlap:
        targets = windows.column(lambda places: places.targets, lengths.dtype)
    full_rows = np.array([settings.rows_at(width) for width in settings.widths], np.int32)
    real, pairs = _totals(order, lengths, targets, edges)
    which = np.searchsorted(settings.widths, widths)
    return Plan(order, first_of_row, bounds, widths, full_rows[which], real, pairs)


def _packed(order: np.ndarray, lengths: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows row after row, each as full as can be, and where each row begins; windows of one
    length take their places in the order given."""
    falling = np.argsort(lengths.max(initial=0) - lengths[order], kind="stable")
    order = order[falling]
    del falling
    row = pack(lengths[order], width)
    return order[np.argsort(row, kind="stable")], _bounds(np.bincount(row))


def _by_width(
    order: np.ndarray, lengths: np.ndarray, widths: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The windows sorted by the number of the width they are padded to, otherwise in the order
    given, and where each width ends."""
    classes = np.zeros(len(order), np.min_scalar_type(len(widths)))
    for width in widths[:-1]:
        classes += lengths > width
    classes = classes[order]
    counts = [np.count_nonzero(classes == number) for number in range(len(widths))]
    ends = np.cumsum(counts)
    found, places = np.empty_like(order), (ends - counts).tolist()
    for begin in range(0, len(order), BLOCK):
        some, its = order[begin : begin + BLOCK], classes[begin : begin + BLOCK]
        for number, at in enumerate(places):
            chosen = some[its == number]
            found[at : at + len(chosen)] = chosen
            places[number] += len(chosen)
    return found, ends


def _rearranged(
    values: np.ndarray, first: np.ndarray, sizes: np.ndarray, to: np.ndarray | None = None
) -> np.ndarray:
    """values[first[0] : first[0] + sizes[0]], then the next, written into `to`."""
    found = np.empty_like(values) if to is None else to
    ends = np.cumsum(sizes, dtype=np.int64)
    for some in _pieces(ends):
        begin = int(ends[some.start] - sizes[some.start])
        found[begin : ends[some.stop - 1]] = values[ranges(first[some], sizes[some])]
    return found


def _pieces(ends: np.ndarray) -> Iterator[slice]:
    """Groups of neighbours with about `BLOCK` entries, or a single larger one."""
    at = 0
    while at < len(ends):
        done = int(ends[at - 1]) if at else 0
        until = max(at + 1, int(np.searchsorted(ends, done + BLOCK, side="right")))
        yield slice(at, until)
        at = until


def _totals(
    order: np.ndarray, lengths: np.ndarray, targets: np.ndarray, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Real targets and query-key pairs of order[edges[0]:edges[1]] and so on, none empty."""
    real, pairs = (np.zeros(len(edges) - 1, np.int64) for _ in range(2))
    for some in _pieces(edges[1:]):
        begin = int(edges[some.start])
        numbers, at = order[begin : edges[some.stop]], edges[some.start : some.stop] - begin
        length = lengths[numbers].astype(np.int64)
        real[some] = np.add.reduceat(targets[numbers], at, dtype=np.int64)
        pairs[some] = np.add.reduceat(length * length + length, at) // 2
    return narrow(real), narrow(pairs)


def _cut_batches(ends: np.ndarray, settings: BatchSettings) -> tuple[np.ndarray, np.ndarray]:
    """Rows and width of each batch, of rows sorted by their widths, each of which ends in `ends`.
    What does not fill a batch is left to the next width."""
    sizes, widths = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    at = 0
    for width, end in zip(settings.widths, ends.tolist(), strict=True):
        rows = settings.rows_at(width)
        full, rest = divmod(end - at, rows)
        its = np.full(full, rows, np.int32)
        if rest and width == settings.widths[-1]:
            its = np.append(its, np.int32(rest))
        sizes.append(its)
        widths.append(np.full(len(its), width, np.int32))
        at += full * rows
    return np.concatenate(sizes), np.concatenate(widths)
