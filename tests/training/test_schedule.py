"""Each schedule's course from its definition."""

import math
from itertools import pairwise

import pytest

from lightning_embed.training.schedule import schedule_factor

SCHEDULE = {"total_steps": 100, "warmup_steps": 10, "decay_fraction": 0.4, "final_fraction": 0.1}


@pytest.mark.parametrize("schedule", ["wsd", "cosine", "constant"])
def test_warm_up_rises_in_a_line_from_above_zero(schedule) -> None:
    factors = [schedule_factor(s, schedule=schedule, **SCHEDULE) for s in range(11)]
    assert factors[:10] == pytest.approx([(s + 1) / 10 for s in range(10)])
    assert factors[10] == 1


def test_wsd_is_flat_and_then_falls_in_a_line() -> None:
    factor = [schedule_factor(s, schedule="wsd", **SCHEDULE) for s in range(120)]
    assert factor[10:61] == [1.0] * 51
    assert factor[80] == pytest.approx(0.55)
    falls = [a - b for a, b in pairwise(factor[60:100])]
    assert falls == pytest.approx([0.9 / 40] * 39)
    assert factor[100:] == pytest.approx([0.1] * 20)  # and stays down after its end


def test_cosine_falls_all_the_way() -> None:
    factor = [schedule_factor(s, schedule="cosine", **SCHEDULE) for s in range(120)]
    for s in range(10, 100):
        wanted = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (s - 10) / 90))
        assert factor[s] == pytest.approx(wanted)
    assert factor[100:] == pytest.approx([0.1] * 20)


def test_constant_stays() -> None:
    assert schedule_factor(10**6, schedule="constant", **SCHEDULE) == 1


@pytest.mark.parametrize("schedule", ["wsd", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0, 1, 5, 50])
def test_shorter_than_its_warm_up_never_leaves_zero_to_one(schedule, warmup) -> None:
    settings = SCHEDULE | {"total_steps": 5, "warmup_steps": warmup}
    for step in range(60):
        assert 0 < schedule_factor(step, schedule=schedule, **settings) <= 1
