"""Which lengths share a row: best fit, the longest first.

`plan.py` packs an epoch's windows with it, `batch.py` those of one batch. It knows lengths alone.
"""

from array import array
from bisect import bisect_left, insort
from itertools import pairwise

import numpy as np


def pack(lengths: np.ndarray, width: int) -> np.ndarray:
    """The row `(N,)` of each length, by best fit; `lengths` are sorted descending.

    Equal lengths are placed together, so that millions of windows take no longer than there are
    pairs of a length and a free space.
    """
    row = np.empty(len(lengths), np.int64 if len(lengths) > np.iinfo(np.int32).max else np.int32)
    free: dict[int, array[int]] = {}  # rows by their free space
    spaces: list[int] = []  # its keys, sorted ascending
    made = 0

    def keep(space: int, rows: "array[int]") -> None:
        if space and rows:
            if space not in free:
                insort(spaces, space)
                free[space] = array("q")
            free[space].extend(rows)

    ends = [*(np.flatnonzero(np.diff(lengths)) + 1).tolist(), len(lengths)] if len(lengths) else []
    for at, end in pairwise([0, *ends]):
        length, left = int(lengths[at]), end - at
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
                rows = array("q", range(made, made + wanted))
                made += wanted
            placed = min(left, each * len(rows))
            row[at : at + placed] = np.repeat(rows, each)[:placed]
            full, rest = divmod(placed, each)
            keep(space - each * length, rows[:full])
            if rest:
                keep(space - rest * length, rows[full:])
            at, left = at + placed, left - placed
    return row
