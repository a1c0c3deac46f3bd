"""Intervals against tables, against numbers worked out by hand, and on simulated texts."""

import math

import numpy as np
import pytest

from lightning_embed.evaluation.intervals import ratio_interval, student_t


@pytest.mark.parametrize(
    ("degrees", "wanted"), [(2, 4.303), (3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042)]
)
def test_student_t_is_that_of_the_tables(degrees: float, wanted: float) -> None:
    assert student_t(0.975, degrees) == pytest.approx(wanted, rel=0.01)
    assert student_t(0.025, degrees) == pytest.approx(-student_t(0.975, degrees))
    assert student_t(0.975, 0.2) == student_t(0.975, 1)


def test_with_equal_sizes_it_is_the_interval_of_a_mean() -> None:
    """Of 1, 2, 3, 6: mean 3, standard deviation 2.160, t of 3 degrees 3.182."""
    found = ratio_interval(np.array([1, 2, 3, 6]), np.ones(4))
    assert found.value == 3 and found.units == 4 and found.effective == 4
    assert found.high - 3 == pytest.approx(3.182 * 2.160 / 2, rel=0.005)
    assert found.high - 3 == pytest.approx(3 - found.low)


def test_unequal_sizes_by_hand() -> None:
    """(2 + 6) / (1 + 3); without the first 6 / 3, without the second 2 / 1: no error at all. With
    4 and 6: 10 / 4 = 2.5, without each 2 and 4, whose jackknife variance is 1 / 2 * (1 + 1)."""
    assert ratio_interval(np.array([2, 6]), np.array([1, 3])).high == 2
    found = ratio_interval(np.array([4, 6]), np.array([1, 3]))
    assert found.value == 2.5
    assert found.effective == pytest.approx(16 / 10)
    assert found.high - 2.5 == pytest.approx(student_t(0.975, 1) * 1)


def test_units_without_size_do_not_count() -> None:
    some = ratio_interval(np.array([1.0, 2, 4]), np.array([1.0, 1, 2]))
    more = ratio_interval(np.array([1.0, 0, 2, 4]), np.array([1.0, 0, 1, 2]))
    assert some == more


def test_of_one_unit_and_of_none_there_is_no_interval() -> None:
    one = ratio_interval(np.array([3.0]), np.array([2.0]))
    assert one.value == 1.5 and math.isnan(one.low) and not one.known and not one.reliable
    assert math.isnan(ratio_interval(np.zeros(3), np.zeros(3)).value)


def test_few_units_or_one_that_outweighs_the_others_are_not_reliable() -> None:
    assert not ratio_interval(np.arange(5.0), np.ones(5)).reliable
    assert ratio_interval(np.arange(12.0), np.ones(12)).reliable
    sizes = np.array([1000.0, *np.ones(30)])
    assert not ratio_interval(sizes * 2, sizes).reliable


@pytest.mark.parametrize("units", [5, 20])
def test_intervals_hold_the_truth_about_as_often_as_they_say(units: int) -> None:
    """1,500 simulated evaluations; sizes differ widely, and shorter texts are harder."""
    draw = np.random.default_rng(units)

    def texts(*shape: int) -> tuple[np.ndarray, np.ndarray]:
        size = np.exp(draw.standard_normal(shape))
        return size**0.92 * np.exp(0.2 * draw.standard_normal(shape)), size

    bits, size = texts(1_000_000)
    truth = bits.sum() / size.sum()
    found = [ratio_interval(*texts(units)) for _ in range(1500)]
    share = np.mean([x.low < truth < x.high for x in found])
    assert 0.915 < share < 0.985
