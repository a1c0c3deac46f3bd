"""A mixture's shares of an epoch, its turns and its number of batches, in both layouts."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_embed.data.batch import PaddedRows
from lightning_embed.data.loader import PlanLoader
from lightning_embed.data.mixture import Mixture, normalised, passes_of
from lightning_embed.data.plan import BatchSettings, Layout, plan_epoch
from lightning_embed.data.windows import Windows, cut_windows
from lightning_embed.errors import UserError

LONGEST = 16
NAMES = ("a", "b", "c")


def batches(layout: Layout, tokens: int = 64) -> BatchSettings:
    return BatchSettings(tokens, (4, 8, LONGEST), layout=layout)


def made(
    sizes: list[int], shares: list[float], max_passes: float = 4.0, seed: int = 0
) -> tuple[Windows, np.ndarray, Mixture]:
    """Windows of sources with so many documents of all lengths, and their mixture."""
    draw = np.random.default_rng(seed)
    lengths = [draw.integers(2, 40, size) for size in sizes]
    windows = cut_windows(np.concatenate([[0], np.cumsum(np.concatenate(lengths))]), LONGEST)
    source = np.repeat(np.arange(len(sizes)), sizes)[windows.document]
    asked = dict(zip(NAMES, shares, strict=False))
    mix = normalised(asked, list(asked))
    return windows, source, Mixture(windows, source, mix, max_passes, seed)


def targets_of(windows: Windows, source: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Real targets of each source among these windows."""
    return np.bincount(source[numbers], windows.targets[numbers], source.max() + 1)


positive = st.floats(0.01, 1)


@given(
    st.lists(st.tuples(st.integers(1, 80), positive), min_size=2, max_size=3),
    st.floats(1, 9),
    st.integers(0, 5),
    st.sampled_from(["padded", "packed"]),
)
@settings(max_examples=60, deadline=None)
def test_shares_batches_and_turns(
    sources: list[tuple[int, float]], max_passes: float, seed: int, layout: Layout
) -> None:
    windows, source, mixture = made(*zip(*sources, strict=True), max_passes, seed)  # type: ignore[arg-type]
    passes = np.array([each.passes for each in mixture.ingredients])
    assert passes.min() == pytest.approx(1) and passes.max() <= max_passes
    epochs = math.ceil(1 / max(1e-9, min((p % 1 for p in passes if p % 1 > 0.2), default=1)))
    counts = np.zeros(len(windows), int)
    lengths = set()
    for epoch in range(epochs):
        plan, again = (
            plan_epoch(windows, batches(layout), seed=seed, epoch=epoch, draw=mixture.draw(epoch))
            for _ in range(2)
        )
        lengths.add(len(plan))
        had = targets_of(windows, source, plan.order)
        wanted = passes * [each.tokens for each in mixture.ingredients]
        assert (abs(had - wanted) <= 2 * LONGEST).all()
        assert plan.targets.sum() == had.sum()
        for begin, end in pairwise(
            plan.begin(np.arange(plan.bounds[-1] + 1))
        ):  # what was planned with room fits
            assert windows.length[plan.order[begin:end]].sum() <= LONGEST
        assert np.array_equal(again.order, plan.order)
        counts += np.bincount(plan.order, minlength=len(windows))
    assert len(lengths) == 1  # a resume counts them
    for number, times in enumerate(passes):  # all windows have their turns, none another's
        its = counts[source == number]
        assert its.max() - its.min() <= 2 and its.min() >= epochs * math.floor(times + 1e-9)


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize(("world", "accumulate", "start"), [(1, 1, 0), (2, 1, 7), (2, 2, 7)])
def test_an_epoch_is_exact_to_one_batch_on_any_processes_and_resumed(
    layout: Layout, world: int, accumulate: int, start: int
) -> None:
    """The first `start` batches on one process, all others on `world` ones."""
    windows, source, mixture = made([400, 90, 60], [0.5, 0.3, 0.2])
    offsets = np.array([0, 1])
    rows = PaddedRows(np.zeros(1, np.uint16), windows, source, source, offsets, 10)

    def loader(rank: int, processes: int, each: int) -> PlanLoader:
        found = PlanLoader(
            rows,
            batches(layout),
            seed=1,
            shuffle=True,
            rank=rank,
            world_size=processes,
            accumulate=each,
            mixture=mixture,
        )
        found.set_epoch(3)
        return found

    first = [m.windows for m in loader(0, 1, 1).micro_batches()][:start]
    rest = [
        micro.windows
        for rank in range(world)
        for micro in loader(rank, world, accumulate).micro_batches(start * accumulate)
    ]
    numbers = np.concatenate(first + rest)
    plan = loader(0, 1, 1).plan
    assert np.array_equal(np.sort(numbers), np.sort(plan.order))
    had = targets_of(windows, source, numbers)
    assert had.max() > 1000
    assert (abs(had - had.sum() * np.array([0.5, 0.3, 0.2])) <= 64).all()


def test_every_window_of_a_part_of_a_pass_has_its_turn() -> None:
    """Of 1.3 passes the 0.3 are other windows each time, until all were there."""
    windows, source, mixture = made([100, 60], [0.5, 0.5])
    extra = mixture.ingredients[1].passes % 1
    n = int((source == 1).sum())
    drawn = np.zeros(len(windows), int)
    laps = math.ceil(1 / (round(extra * n) / n))
    for epoch in range(laps):
        drawn += np.bincount(mixture.draw(epoch).windows, minlength=len(windows))
    whole = math.floor(mixture.ingredients[1].passes)
    assert 0 < extra < 1 and (drawn[source == 1] > whole * laps).all()
    assert (drawn[source == 0] == laps).all()
    far, near = mixture.draw(1000), mixture.draw(1)
    assert np.array_equal(far.room, near.room) and not np.array_equal(far.windows, near.windows)


def test_the_source_that_is_repeated_least_is_seen_once() -> None:
    tokens, shares = np.array([1000.0, 100.0, 10.0, 50.0]), np.array([0.5, 0.25, 0.25, 0.0])
    assert passes_of(tokens, shares, 1000).tolist() == [1, 5, 50, 0]
    assert passes_of(tokens, shares, 4).tolist() == [1, 4, 4, 0]
    assert passes_of(tokens, shares, 1).tolist() == [1, 1, 1, 0]


def test_a_source_too_small_for_its_share_has_less() -> None:
    _, _, mixture = made([300, 10], [0.5, 0.5])
    small = mixture.ingredients[1]
    assert small.passes == 4 and small.had < 0.2 and small.asked == 0.5
    assert mixture.most_passes == 4
    assert mixture.unique == sum(each.tokens for each in mixture.ingredients)


def test_a_source_with_zero_trains_nothing() -> None:
    _, source, mixture = made([30, 20, 10], [1, 0, 3])
    assert set(source[mixture.draw(0).windows]) == {0, 2}
    assert mixture.ingredients[1].passes == mixture.ingredients[1].had == 0


@pytest.mark.parametrize(
    ("mix", "why"),
    [
        ({"bokos": 1}, r"names bokos, .* \(did you mean books\?\)"),
        ({"books": 1}, "no share of web"),
        ({"books": 1, "web": -1}, r"--data\.mix\.web must be at least 0"),
        ({"books": 1, "web": float("nan")}, r"--data\.mix\.web must be"),
        ({"books": 0, "web": 0}, "nothing but zeros"),
        ({"books": 1e308, "web": 1e308}, r"--data\.mix\.books must be"),
        ({"books": 1e-13, "web": 1}, "is 1e-13 of 1 in all: give at least 1e-06"),
    ],
)
def test_a_mix_that_cannot_be(mix: dict[str, float], why: str) -> None:
    with pytest.raises(UserError, match=why):
        normalised(mix, ["books", "web"])


def test_any_numbers_are_shares() -> None:
    assert normalised({"web": 30, "books": 70}, ["books", "web"]) == {"books": 0.7, "web": 0.3}
    with pytest.raises(UserError, match="b has nothing to train on"):
        windows, source, _ = made([5, 5], [1, 1])
        Mixture(windows, np.zeros_like(source), {"a": 0.5, "b": 0.5}, 4, 0)
