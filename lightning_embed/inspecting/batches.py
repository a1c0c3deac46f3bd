"""One batch as the network gets it: rows of ids with padding, targets, and how rows are repacked.

row 0     000000000000000000000000      each sign a few positions of a row; a digit or letter
row 1     1111111.................      is a window, a dot is padding
repacked  000000000000000000000000
          1111111......
"""

from dataclasses import dataclass
from string import ascii_letters, digits

import numpy as np

from lightning_embed.data.batch import lay_out
from lightning_embed.data.loader import PlanLoader
from lightning_embed.recording.projector import labels
from lightning_embed.special_tokens import IGNORE_INDEX, PAD_ID
from lightning_embed.tokens.tokenizer import TextTokenizer

SIGNS = digits + ascii_letters
PADDING = "."
ROWS = 8  # of a batch
BEGINNING = 5  # positions of a row that are shown, and this many on each side of a window's end:
EDGE = 2
ENDS = 2  # windows whose ends are shown


@dataclass(frozen=True)
class Position:
    """One position of a row: what stands there, and what is to be predicted from it."""

    position: int
    id: int
    piece: str
    target: int
    target_piece: str
    window_begins: int  # or the padding; nothing before it is seen from here


@dataclass(frozen=True)
class ShownBatch:
    """The global batch of a step, as one process gets it without accumulation.

    Attributes:
        step: optimizer step, the first is 1.
        rows, width: of the padded batch.
        targets: real ones, in all of it.
        padding: share of its positions that hold no token.
        repacked_rows, repacked_width: of the rows that the network works on.
        repacked_padding: share of their positions.
        ids, target_ids: of the first rows; padding is id 1, and no target is -100.
        windows: `(rows, width)` of the first rows, which of the batch's windows each position is
            of; -1 is padding.
        repacked: the same of the first repacked rows.
        documents: number of the document of each window.
        sources: its file.
        near_row: of the rows above, the one with most padding or most windows.
        near: positions of it: its beginning, and where windows end.
    """

    step: int
    rows: int
    width: int
    targets: int
    padding: float
    repacked_rows: int
    repacked_width: int
    repacked_padding: float
    ids: list[list[int]]
    target_ids: list[list[int]]
    windows: list[list[int]]
    repacked: list[list[int]]
    documents: list[int]
    sources: list[str]
    near_row: int
    near: list[Position]


def shown_batch(
    loader: PlanLoader, batch: int, step: int, tokenizer: TextTokenizer, names: list[str]
) -> ShownBatch:
    """A global batch of the loader's epoch.

    Args:
        loader: of the training text.
        batch: its number in the epoch.
        step: that trains on it.
        tokenizer: of the ids.
        names: of all sources.
    """
    micro = loader.plan.micro_batch(batch, index=0, n_micro=1)
    found = loader.rows[micro]
    sizes = loader.rows.windows.length[micro.windows].astype(np.int64)
    owner = np.full(micro.n_rows * micro.width, -1)
    begins = lay_out(sizes, micro.row, micro.n_rows, micro.width).begin
    for number, (begin, size) in enumerate(zip(begins.tolist(), sizes.tolist(), strict=True)):
        owner[begin : begin + size] = number
    rows = owner.reshape(micro.n_rows, micro.width)
    repacked = rows
    if found.repack is not None:
        repacked = owner[found.repack.numpy()]
    documents = loader.rows.windows.document[micro.windows]
    ids, targets = found.ids.numpy(), found.targets.numpy()
    borders = np.diff(rows[:ROWS]) != 0
    near = int(np.lexsort(((rows[:ROWS] < 0).sum(axis=1), borders.sum(axis=1)))[-1])
    return ShownBatch(
        step=step,
        rows=micro.n_rows,
        width=micro.width,
        targets=micro.global_targets,
        padding=float((rows < 0).mean()),
        repacked_rows=repacked.shape[0],
        repacked_width=repacked.shape[1],
        repacked_padding=float((repacked < 0).mean()),
        ids=ids[:ROWS].tolist(),
        target_ids=targets[:ROWS].tolist(),
        windows=rows[:ROWS].tolist(),
        repacked=repacked[:ROWS].tolist(),
        documents=documents.tolist(),
        sources=[names[n] for n in loader.rows.group[documents].tolist()],
        near_row=near,
        near=_positions(ids[near], targets[near], rows[near], tokenizer),
    )


def _positions(
    ids: np.ndarray, targets: np.ndarray, owner: np.ndarray, tokenizer: TextTokenizer
) -> list[Position]:
    ends = np.append(np.flatnonzero(np.diff(owner)) + 1, len(ids))
    wanted = {*range(BEGINNING)}
    for end in (*ends[:ENDS].tolist(), int(ends[-1])):
        wanted.update(range(end - EDGE, end + EDGE))
    chosen = sorted(wanted & {*range(len(ids))})
    pieces = labels(tokenizer, ids[chosen].tolist())
    predicted = np.where(targets == IGNORE_INDEX, PAD_ID, targets)
    target_pieces = labels(tokenizer, predicted[chosen].tolist())
    starts = [int(np.argmax(owner == owner[at])) for at in chosen]
    return [
        Position(at, int(ids[at]), piece, int(targets[at]), "" if targets[at] < 0 else goal, start)
        for at, piece, goal, start in zip(chosen, pieces, target_pieces, starts, strict=True)
    ]


def drawn(row: list[int], width: int, room: int) -> str:
    """A row of windows in so many columns as it has of the room that `width` positions take."""
    columns = min(room, width)
    at = (np.arange(columns * len(row) // width) * width) // columns
    return "".join(PADDING if row[n] < 0 else SIGNS[row[n] % len(SIGNS)] for n in at)
