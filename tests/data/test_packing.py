"""Which lengths share a row."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_embed.data.packing import pack


@given(lengths=st.lists(st.integers(1, 12), max_size=60))
@settings(max_examples=200, deadline=None)
def test_packing_is_best_fit_longest_first(lengths) -> None:
    """Against the rule applied to one window at a time."""
    falling = np.array(sorted(lengths, reverse=True), np.int64)
    used: list[int] = []
    for length in falling.tolist():
        fitting = [space for space in (12 - n for n in used) if space >= length]
        if fitting:
            used[used.index(12 - min(fitting))] += length
        else:
            used.append(length)
    row = pack(falling, 12)
    filled = np.bincount(row, falling, minlength=len(used))
    assert sorted(filled.tolist()) == sorted(used)
    assert sorted(set(row.tolist())) == list(range(len(used)))


def test_packing_of_many_windows_takes_no_step_for_each() -> None:
    row = pack(np.full(3_000_000, 3), 8)  # one window at a time, this takes seconds
    assert row[-1] == 1_499_999 and (np.bincount(row) == 2).all()
