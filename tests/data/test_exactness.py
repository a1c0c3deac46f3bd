"""The plan is the same everywhere and always, whoever works it off and however often that stops.

Pure Python over the plan and its loader; whole runs are compared in `test_resume.py`, `test_ddp.py`
and, at length, in `tests/soak/test_kills.py` and `tests/soak/test_splits.py`.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_embed.data.batch import PaddedRows
from lightning_embed.data.loader import PlanLoader
from lightning_embed.data.plan import BatchSettings, MicroBatch, Plan, plan_epoch
from lightning_embed.data.windows import cut_windows
from lightning_embed.special_tokens import PAD_ID

# One order for ever ------------------------------------------------------------------------------


def test_a_small_plan_is_pinned() -> None:
    """A checkpoint counts batches: were their order another in the next version, of this package or
    of numpy, a resumed run would see some windows twice and others never."""
    offsets = np.cumsum([0, 4, 9, 3, 6, 12, 2, 5, 0, 1, 20])
    plan = plan_epoch(cut_windows(offsets, 8), BatchSettings(16, (2, 4, 8)), seed=7, epoch=3)
    assert plan.order.tolist() == [0, 10, 8, 1, 2, 6, 5, 7, 3, 4, 9]
    assert plan.bounds.tolist() == [0, 2, 4, 8, 10, 11]
    assert plan.widths.tolist() == [8, 8, 4, 8, 8]
    assert plan.full_rows.tolist() == [2, 2, 4, 2, 2]
    assert plan.targets.tolist() == [6, 16, 10, 13, 8]


def digest(plan: Plan) -> str:
    columns = plan.order, plan.bounds, plan.widths, plan.full_rows, plan.targets
    content = b"".join(column.astype("<i8").tobytes() for column in columns)
    return hashlib.blake2b(content, digest_size=8).hexdigest()


@pytest.mark.parametrize(
    ("overlap", "shuffle", "rows", "expected"),
    [
        (0, True, None, "ee8732164e382f02"),
        (0, True, 3, "d2c0b42bea295f64"),
        (0, False, None, "938145fb357740a1"),
        (0, False, 3, "106eb2c74fd2ab8b"),
        (5, True, None, "749f035389075bee"),
        (5, False, 3, "1bbcc59a5565d1ac"),
    ],
)
def test_larger_plans_are_pinned(
    overlap: int, shuffle: bool, rows: int | None, expected: str
) -> None:
    offsets = np.concatenate([[0], np.cumsum(np.random.default_rng(0).integers(0, 60, 5000))])
    batch = BatchSettings(256, tuple(range(4, 33, 4)), rows)
    windows = cut_windows(offsets, 32, overlap)
    assert digest(plan_epoch(windows, batch, seed=1, epoch=2, shuffle=shuffle)) == expected


def test_numbers_too_large_for_int32_stay_right() -> None:
    """Columns are narrow only where they fit; an offset is not among them."""
    far = 5 * 2**31
    near, shifted = (cut_windows(np.array([0, 4, 11]) + by, 4) for by in (0, far))
    assert (shifted.start - near.start == far).all() and shifted.start.dtype == np.int64
    for column in ("length", "context", "document"):
        assert np.array_equal(getattr(near, column), getattr(shifted, column))
    long = cut_windows(np.array([0, 3 * 2**30 + 1]), 2**30)  # one document beyond int32
    assert long.start.tolist() == [0, 2**30, 2**31] and long.length.tolist() == [2**30] * 3


# Every window once, whoever takes it --------------------------------------------------------------

SETTINGS = BatchSettings(64, (4, 8, 16))


class Stretch(NamedTuple):
    """So many global batches, and how they are divided."""

    batches: int
    world_size: int
    accumulate: int


def global_batches(
    rows: PaddedRows, stretches: list[Stretch], *, epoch: int
) -> Iterator[list[MicroBatch]]:
    """The micro-batches of each global batch of an epoch, as the processes of each stretch in turn
    would load them; every stretch is a new run that knows only how many batches are done. The last
    goes on to the epoch's end."""
    done = 0
    for number, (batches, world_size, accumulate) in enumerate(stretches):
        loaders = [
            PlanLoader(
                rows,
                SETTINGS,
                seed=5,
                shuffle=True,
                rank=rank,
                world_size=world_size,
                accumulate=accumulate,
            )
            for rank in range(world_size)
        ]
        for loader in loaders:
            loader.set_epoch(epoch)
        total = len(loaders[0].plan)
        stop = total if number == len(stretches) - 1 else min(done + batches, total)
        ranks = [loader.micro_batches(done * accumulate) for loader in loaders]
        for _ in range(done, stop):
            yield [next(rank) for _ in range(accumulate) for rank in ranks]
        done = stop
        if done == total:
            assert all(next(rank, None) is None for rank in ranks)


STRETCH = st.builds(Stretch, st.integers(0, 12), st.sampled_from([1, 2, 3, 8]), st.integers(1, 4))


@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=60).filter(lambda n: max(n) > 1),
    stretches=st.lists(STRETCH, min_size=1, max_size=5),
    epoch=st.integers(0, 2),
)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_an_epoch_visits_each_window_once_through_every_change(
    make_rows: Callable[..., PaddedRows],
    lengths: list[int],
    stretches: list[Stretch],
    epoch: int,
) -> None:
    rows = make_rows(lengths, max_length=16)
    seen = [
        window
        for micros in global_batches(rows, stretches, epoch=epoch)
        for micro in micros
        for window in micro.windows.tolist()
    ]
    assert sorted(seen) == list(range(len(rows.windows)))


def content_hash(micros: list[MicroBatch], rows: PaddedRows) -> str:
    """Of the rows of a global batch as they come out of the loader, in no order."""
    lines = []
    for micro in micros:
        batch = rows[micro]
        for ids, targets in zip(batch.ids.tolist(), batch.targets.tolist(), strict=True):
            if any(token != PAD_ID for token in ids):  # rows without a window differ in number
                lines.append(f"{ids} {targets}")
    totals = {(micro.width, micro.global_targets) for micro in micros}
    return hashlib.blake2b(f"{sorted(lines)} {totals}".encode()).hexdigest()


SPLITS = {
    "2 processes": [Stretch(0, 2, 1)],
    "8 processes": [Stretch(0, 8, 1)],
    "accumulation 2": [Stretch(0, 1, 2)],
    "accumulation 4": [Stretch(0, 1, 4)],
    "2 processes, accumulation 3": [Stretch(0, 2, 3)],
    "1, 2, 1 processes": [Stretch(7, 1, 1), Stretch(5, 2, 1), Stretch(0, 1, 1)],
    "accumulation 4, 1, 2": [Stretch(3, 1, 4), Stretch(1, 1, 1), Stretch(0, 1, 2)],
    "2 x 2, 1 x 1, 8 x 1": [Stretch(4, 2, 2), Stretch(6, 1, 1), Stretch(0, 8, 1)],
}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("epoch", [0, 1])
def test_batches_hold_the_same_text_however_they_are_split(
    make_rows: Callable[..., PaddedRows], split: str, epoch: int
) -> None:
    rows = make_rows(np.random.default_rng(3).integers(2, 60, 60).tolist(), max_length=16)

    def hashes(stretches: list[Stretch]) -> list[str]:
        return [content_hash(m, rows) for m in global_batches(rows, stretches, epoch=epoch)]

    whole = hashes([Stretch(0, 1, 1)])
    assert len(set(whole)) == len(whole) > 20  # else equal hashes would say little
    assert hashes(SPLITS[split]) == whole
