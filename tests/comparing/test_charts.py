"""Curves as SVG."""

import math
import re
import xml.etree.ElementTree as xml

import pytest

from lightning_embed.comparing.charts import (
    HEIGHT,
    MOST_POINTS,
    WIDTH,
    Curve,
    chart,
    in_short,
    thinned,
    ticks,
)


def numbers(path: str) -> list[float]:
    return [float(x) for x in re.findall(r"-?[\d.]+", path)]


def curves_of(svg: str) -> list[str]:
    root = xml.fromstring(svg)
    return [x.attrib["d"] for x in root.iter("path") if "curve" in x.attrib["class"]]


def test_a_falling_curve_falls_on_the_page() -> None:
    (path,) = curves_of(chart([Curve(0, "a", [(1, 4.0), (2, 3.0), (3, 2.5)])], "Loss", "steps"))
    places = numbers(path)
    assert places[0::2] == sorted(places[0::2]) and places[1::2] == sorted(places[1::2])
    assert all(0 <= x <= WIDTH for x in places[0::2])
    assert all(0 <= y <= HEIGHT for y in places[1::2])


def test_runs_lie_over_each_other_in_the_same_scale() -> None:
    points = [(1, 4.0), (2, 3.0)]
    one, other = curves_of(chart([Curve(0, "a", points), Curve(1, "b", points)], "Loss", "steps"))
    assert one == other


def test_the_beginning_may_lie_above_the_chart() -> None:
    """Else what differs at the end would not be seen."""
    points = [(step, 3.0 + 100 / step) for step in range(1, 101)]
    (path,) = curves_of(chart([Curve(0, "a", points)], "Loss", "steps"))
    heights = numbers(path)[1::2]
    assert heights[0] < 0 and all(0 <= y <= HEIGHT for y in heights[4:])


def test_what_is_not_finite_is_a_gap() -> None:
    points = [(1, 4.0), (2, math.nan), (3, 3.0), (4, math.inf), (5, 3.0)]
    (path,) = curves_of(chart([Curve(0, "a", points, bold=True)], "Loss", "steps"))
    assert path.count("M") == 3 and "nan" not in path and "inf" not in path
    empty = chart([Curve(0, "a", [(1, math.nan)])], "Loss", "steps")
    assert curves_of(empty) == [] and "no finite figures" in empty
    assert "no finite figures" in chart([], "Loss", "steps")


@pytest.mark.parametrize("points", [[(0.0, 1.0)], [(5, 0.0), (9, 0.0)], [(1, -2.0), (2, -2.0)]])
def test_one_point_and_constant_values(points: list[tuple[float, float]]) -> None:
    xml.fromstring(chart([Curve(0, "a", points)], "Loss", "steps"))


def test_labels_are_escaped() -> None:
    svg = chart([Curve(0, '<b> & "c"', [(1, 1.0), (2, 2.0)], bold=True)], "<x>", '"y"')
    titles = [title.text for title in xml.fromstring(svg).iter("title")]
    assert titles[0] == '<b> & "c"'


def test_ticks_are_round_numbers() -> None:
    assert ticks(0, 1000) == [0, 200, 400, 600, 800, 1000]
    assert ticks(2.27, 2.63) == pytest.approx([2.3, 2.4, 2.5, 2.6])
    assert [in_short(x) for x in (0, 0.25, 800, 1500, 12e6, 2e9)] == [
        *("0", "0.25", "800", "1.5k", "12M", "2G")
    ]


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    points = [(float(x), 0.0) for x in range(12_345)]
    found = thinned(points)
    assert len(found) <= MOST_POINTS + 1
    assert (found[0], found[-1]) == (points[0], points[-1])
    assert thinned(points[:MOST_POINTS]) == points[:MOST_POINTS]


def test_points_are_marked_where_they_are_few() -> None:
    points = [(float(x), 1.0 / x) for x in range(1, 100)]

    def marks(count: int, bold: bool) -> int:
        return chart([Curve(0, "a", points[:count], bold)], "Loss", "steps").count("<circle")

    assert [marks(5, True), marks(5, False), marks(1, False), marks(99, True)] == [5, 0, 1, 0]
