"""`Pace`: looks by number alone, lines by time, and how long is left."""

from itertools import pairwise

import pytest

from lightning_embed.watching.pace import BETWEEN, FIRST, LINES, Pace

MOST_LINES = 40  # of a run
ROUNDING = 1e-6  # seconds


class Clock:
    """A clock that moves when told."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def lines(
    total: int, seconds: float, *, every: int = 50, first_step: int = 0
) -> list[tuple[int, float]]:
    """Step and seconds since the first step's end of each line, if all steps take this long."""
    clock = Clock()
    pace = Pace(total, every, first_step, clock)
    found = []
    for step in range(first_step + 1, total + 1):
        clock.now = 1000 + (step - first_step) * seconds
        if step == first_step + 1:
            pace.settle(step)
        elif pace.looks(step) and pace.due(step):
            found.append((step, clock.now - 1000 - seconds))
    return found


@pytest.mark.parametrize("first_step", [0, 777])
@pytest.mark.parametrize("every", [1, 20, 50, 10_000])
@pytest.mark.parametrize("seconds", [0.001, 0.05, 0.4, 1.7, 2.4, 4.9, 5.1, 20, 300])
def test_the_first_line_comes_soon_the_last_at_the_end_and_few_between(
    seconds: float, every: int, first_step: int
) -> None:
    total = 20_000
    found = lines(total, seconds, every=every, first_step=first_step)
    assert FIRST - ROUNDING <= found[0][1] <= max(15, seconds)
    assert found[-1][0] == total
    assert len(found) <= LINES + 2 < MOST_LINES
    between = [later[1] - sooner[1] for sooner, later in pairwise(found[:-1])]
    assert min(between, default=BETWEEN) >= BETWEEN - ROUNDING
    part = total * seconds / LINES
    assert max(between, default=0) <= max(2 * part, BETWEEN + part)


def test_slow_steps_have_a_line_at_the_second_step_and_at_each_20th_of_the_run() -> None:
    """Entries of the loggers would be ten steps apart."""
    found = lines(100, 20.0, every=10)
    assert [step for step, _ in found] == [2, *range(5, 101, 5)]


def test_fast_steps_have_a_line_each_30_seconds() -> None:
    assert [round(since) for _, since in lines(100_000, 0.001)] == [5, 35, 65, 95, 100]


@pytest.mark.parametrize("seconds", [0.001, 20])
def test_a_run_of_three_steps_ends_with_a_line(seconds: float) -> None:
    assert [step for step, _ in lines(3, seconds)] == ([3] if seconds < 1 else [2, 3])


@pytest.mark.parametrize("total", [1, 2, 3, 19, 100, 2047, 100_000])
@pytest.mark.parametrize("first_step", [0, 1, 15])
def test_looks_are_the_same_whatever_the_clock_and_few(total: int, first_step: int) -> None:
    """All processes look, or a collective call waits for ever."""
    one, other = (Pace(total, 10_000, first_step, Clock(now)) for now in (0.0, 77.0))
    steps = range(first_step + 1, total + 1)
    looks = []
    for step in steps:
        one.clock.now += 0.1  # type: ignore[attr-defined]
        other.clock.now += 9.0  # type: ignore[attr-defined]
        assert one.looks(step) == other.looks(step)
        if one.looks(step):
            looks.append(step)
            one.due(step)
            other.due(step)
    assert looks[-1:] == [*steps][-1:]
    assert looks[:4] == [*steps][:4]
    assert len(looks) <= 2 * LINES + total.bit_length() + 3


def test_what_is_left_counts_from_the_step_that_settled() -> None:
    clock = Clock()
    pace = Pace(110, 10, 50, clock)
    clock.now += 1000  # the first step compiles
    pace.settle(51)
    assert pace.left(51) is None
    clock.now += 3
    assert pace.left(52) == pytest.approx(58 * 3)
    clock.now += 1
    assert pace.left(53) == pytest.approx(57 * 2)
    assert pace.left(110) == 0
