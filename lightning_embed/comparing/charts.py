"""Curves of several runs over each other, as SVG.

A chart is drawn at 440 x 280 and scaled by the page. Colours come from the page's style sheet, by
the classes `run0`, `run1`, ...; so that a page can be light or dark, nothing here has a colour.
"""

import math
from collections.abc import Callable
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 440, 280
LEFT, RIGHT, TOP, BOTTOM = 44, 18, 10, 38  # margins around the curves
MOST_POINTS = 500  # of a curve; more would not be seen
MOST_DOTS = 24  # of a curve; more would hide it
SETTLED = 0.05  # of a curve: what lies before it may stand above the chart


class Curve(NamedTuple):
    """What is drawn of one run.

    Attributes:
        run: the number of its colour.
        label: the run's name.
        points: (x, y), in the order of x; where y is not finite, the curve has a gap.
        bold: draw a bold line, and mark its points where they are few.
    """

    run: int
    label: str
    points: list[tuple[float, float]]
    bold: bool = False


def chart(curves: list[Curve], title: str, x_label: str) -> str:
    """An SVG element; one with a word in place of curves if no value is finite."""
    finite = [(x, y) for curve in curves for x, y in curve.points if math.isfinite(y)]
    starts = [(SETTLED * curve.points[-1][0], curve.points) for curve in curves if curve.points]
    settled = [y for start, points in starts for x, y in points if x >= start and math.isfinite(y)]
    head = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label='
        f'"{escape(title)} over {escape(x_label)}">'
    )
    middle = (LEFT + WIDTH - RIGHT) / 2
    name = f'<text class="axis" x="{middle}" y="{HEIGHT - 4}">{escape(x_label)}</text>'
    if not finite:
        empty = f'<text class="axis" x="{middle}" y="{HEIGHT / 2}">no finite figures</text>'
        return f"{head}{name}{empty}</svg>"
    x_ticks = ticks(0.0, max(x for x, _ in finite) or 1.0)
    end = max(max(x for x, _ in finite), x_ticks[-1])
    low, high = min(y for _, y in finite), max(settled or [y for _, y in finite])
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = low - room, high + room

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / end
        return across, TOP + (HEIGHT - TOP - BOTTOM) * (high - y) / (high - low)

    parts = [head, name]
    bottom = HEIGHT - BOTTOM
    for tick in ticks(low, high):
        _, y = at(0, tick)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="y" x="{LEFT - 5}" y="{y + 4:.1f}">{in_short(tick)}</text>')
    for tick in x_ticks:
        x, _ = at(tick, low)
        parts.append(f'<path class="grid" d="M{x:.1f} {bottom}v4"/>')
        parts.append(f'<text class="x" x="{x:.1f}" y="{bottom + 16}">{in_short(tick)}</text>')
    for curve in curves:
        parts.append(_drawn(curve, at))
    return "".join([*parts, "</svg>"])


def _drawn(curve: Curve, at: Callable[[float, float], tuple[float, float]]) -> str:
    """A line and its dots; above the chart it is cut off by the element's own edge."""
    points = thinned(curve.points)
    path, pen = [], "M"
    for x, y in points:
        if not math.isfinite(y):
            pen = "M"
            continue
        across, down = at(x, y)
        path.append(f"{pen}{across:.1f} {down:.1f}")
        pen = "L"
    style = f"run{curve.run}"
    kind = "bold" if curve.bold else "thin"
    dotted = (curve.bold and len(points) <= MOST_DOTS) or len(points) == 1
    parts = [
        f'<path class="curve {kind} {style}" d="{"".join(path)}">'
        f"<title>{escape(curve.label)}</title></path>"
    ]
    for x, y in points if dotted else []:
        if math.isfinite(y):
            across, down = at(x, y)
            told = f"{curve.label}: {y:.4f} at {in_short(x)}"
            parts.append(
                f'<circle class="{style}" cx="{across:.1f}" cy="{down:.1f}" r="2.6">'
                f"<title>{escape(told)}</title></circle>"
            )
    return "".join(parts)


def thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most about `MOST_POINTS` of them: every so many-th, and the last."""
    each = math.ceil(len(points) / MOST_POINTS)
    return points if each < 2 else [*points[:-1:each], points[-1]]


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between two others, 1, 2 or 5 times a power of ten apart."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [number * step for number in range(first, last + 1)]


def in_short(number: float) -> str:
    """`0.5`, `250`, `1.5k`, `12M`."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.4g}{unit}"
    return f"{number:.4g}"
