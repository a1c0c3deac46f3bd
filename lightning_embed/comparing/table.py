"""Runs as a table that fits a terminal of any width, and as JSON.

Columns are left out, the least important first, until a row fits; the settings in which a run
differs from the first one stand behind it, or in lines of their own below.
"""

import math
import textwrap
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from lightning_embed.comparing.record import Record
from lightning_embed.comparing.settings import changed, setting
from lightning_embed.console import cells, printable, short

SHORTEST_NAME = 16  # a longer name is cut to this before a column is left out
WITH_FEW = 10  # or to this, before one of the `FEW` most important columns is
FEW = 4
GAP = "  "


class Column(NamedTuple):
    """A figure of a run.

    Attributes:
        of: its value, None where it is unknown.
        written: a value in a few letters.
        rank: columns with a higher one are left out first.
    """

    heading: str
    of: Callable[[Record], Any]
    written: Callable[[Any], str]
    rank: int


def _when(began: float) -> str:
    return f"{datetime.fromtimestamp(began):%Y-%m-%d %H:%M}"


COLUMNS = {
    "name": Column("name", lambda run: run.label, str, 0),
    "started": Column("started", lambda run: run.began, _when, 6),
    "state": Column("state", lambda run: run.state, str, 2),
    "steps": Column("steps", lambda run: run.steps, str, 4),
    "parameters": Column("params", lambda run: run.parameters, short, 8),
    "minutes": Column("minutes", lambda run: run.minutes, "{:.1f}".format, 5),
    "loss": Column("loss", lambda run: run.loss, "{:.4f}".format, 1),
    "bits_per_byte": Column("bits/byte", lambda run: run.bits_per_byte, "{:.4f}".format, 3),
    "tokens_per_second": Column("tok/s", lambda run: run.tokens_per_second, short, 7),
}
WORDS = ("name", "started", "state")  # are aligned left
LOSSY_FOOTNOTE = (
    "* the tokenizer loses text, which bits/byte leave out: compare with the same tokenizer only"
)
SETTINGS = "settings"  # the last column, by which can be sorted too


def is_column(name: str, runs: list[Record]) -> bool:
    """Whether runs can be sorted by this: a column, or the dotted name of a setting."""
    return name in (*COLUMNS, SETTINGS) or any(
        setting(run.settings, name) is not None for run in runs
    )


def sort_runs(runs: list[Record], column: str, reverse: bool) -> list[Record]:
    """By a column or a setting, ascending, numbers before words; what is unknown comes last."""

    def key(run: Record) -> tuple[bool, Any]:
        if column == SETTINGS:
            found: Any = " ".join(_pairs(changed(runs[0].settings, run.settings)))
        else:
            found = COLUMNS[column].of(run) if column in COLUMNS else setting(run.settings, column)
        if isinstance(found, int | float) and not math.isnan(found):
            return False, (0, found, "")
        return found is None, (1, 0, str(found))

    known = [run for run in runs if not key(run)[0]]
    unknown = [run for run in runs if key(run)[0]]
    return sorted(known, key=key, reverse=reverse) + unknown


def row(run: Record, first: Record) -> dict[str, Any]:
    """A run as JSON: every column, its folder, and what of its settings differs from the first.

    Figures that are not finite are words, as JSON has no numbers for them.
    """
    found: dict[str, Any] = {name: column.of(run) for name, column in COLUMNS.items()}
    for name, value in found.items():
        if isinstance(value, float) and not math.isfinite(value):
            found[name] = str(value)
    different = changed(first.settings, run.settings)
    found |= {"folder": str(run.folder), "problem": run.problem, "lossy": run.lossy}
    return found | {SETTINGS: {name: setting(run.settings, name) for name in different}}


def cell(run: Record, name: str) -> str:
    """A column's value of a run in a few letters, `-` where it is unknown; bits a byte that leave
    out text have a star."""
    value = COLUMNS[name].of(run)
    star = "*" if name == "bits_per_byte" and run.lossy else ""
    return "-" if value is None else COLUMNS[name].written(value) + star


def lines(runs: list[Record], width: int) -> list[str]:
    """The table, no line longer than `width` columns of a terminal."""
    texts = {name: [cell(run, name) for run in runs] for name in COLUMNS}
    sizes = _sizes(texts, width)
    differences = [" ".join(_pairs(changed(runs[0].settings, run.settings))) for run in runs]
    longest = max(cells(text) for text in [SETTINGS, *differences])
    beside = sum(sizes.values()) + len(GAP) * len(sizes) + longest <= width
    headings = [COLUMNS[name].heading for name in sizes]
    found = [_row(headings, sizes, SETTINGS if beside and any(differences) else "")]
    for index, (run, different) in enumerate(zip(runs, differences, strict=True)):
        found.append(
            _row([texts[name][index] for name in sizes], sizes, different if beside else "")
        )
        for below in (
            "" if beside else different,
            run.problem or "",
            LOSSY_FOOTNOTE if run.lossy else "",
        ):
            found += _wrapped(below, width)
    return found


def _sizes(texts: dict[str, list[str]], width: int) -> dict[str, int]:
    """How wide each column is, of those that fit, in their order."""
    sizes = {
        name: max(cells(text) for text in [COLUMNS[name].heading, *its])
        for name, its in texts.items()
    }
    longest = sizes["name"]
    for name in sorted(COLUMNS, key=lambda name: COLUMNS[name].rank, reverse=True):
        shortest = WITH_FEW if len(sizes) <= FEW else SHORTEST_NAME
        left = width - (sum(sizes.values()) - longest) - len(GAP) * (len(sizes) - 1)
        if left >= min(longest, shortest) or name == "name":
            sizes["name"] = max(1, min(longest, left))
            break
        del sizes[name]
    return sizes


def _row(texts: list[str], sizes: dict[str, int], settings: str) -> str:
    aligned = [
        _aligned(text, size, name in WORDS)
        for text, (name, size) in zip(texts, sizes.items(), strict=True)
    ]
    return GAP.join([*aligned, settings]).rstrip()


def _pairs(settings: dict[str, str]) -> list[str]:
    return [printable(f"{name}={value}") for name, value in settings.items()]


def _wrapped(text: str, width: int) -> list[str]:
    indent = " " * min(4, width // 4)
    # A letter may take two columns, so what holds any is wrapped at half of them.
    room = width if cells(text) == len(text) else width // 2
    return textwrap.wrap(text, max(2, room), initial_indent=indent, subsequent_indent=indent)


def _aligned(text: str, size: int, left: bool) -> str:
    if cells(text) > size:
        while cells(text) > size - 1:
            text = text[:-1]
        text += "…"
    space = " " * (size - cells(text))
    return text + space if left else space + text
