"""Drawing in text that fits so many columns: bars, and rows of cells one above the other."""

import sys
from collections.abc import Sequence
from itertools import zip_longest

from lightning_embed.console import cells, printable

BLOCKS = " ▏▎▍▌▋▊▉█"  # eighths of a column
PLAIN_BLOCK = "#"
GAP = "  "
CUT = "…"


def bars(values: Sequence[float], room: int) -> list[str]:
    """A bar for each value, the largest as wide as the room; what is not zero is seen."""
    most = max(values, default=0)
    if most <= 0:
        return [""] * len(values)
    fine = _can_write(BLOCKS)
    found = []
    for value in values:
        eighths = round(8 * room * value / most) or int(value > 0)
        full, rest = divmod(eighths, 8)
        if fine:
            found.append(BLOCKS[-1] * full + (BLOCKS[rest] if rest else ""))
        else:
            found.append(PLAIN_BLOCK * max(full, int(value > 0)))
    return found


def _can_write(text: str) -> bool:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def cut(text: str, room: int) -> str:
    """The text as a terminal shows it, in so many columns at most."""
    text = printable(text)
    if cells(text) <= room:
        return text
    while text and cells(text) > room - 1:
        text = text[:-1]
    return text + CUT


def aligned(
    rows: dict[str, Sequence[str]], room: int, most: int | None = None
) -> tuple[list[str], int]:
    """Rows of cells, cells of the same place below each other, broken where a line is full.

    Args:
        rows: the cells by the name of their row.
        room: columns of a line.
        most: lines of each row.

    Returns:
        The lines, each beginning with its row's name, and how many places were drawn.
    """
    first = max(map(cells, rows))
    left = max(1, room - first - len(GAP))
    columns = [
        [cut(cell, left) for cell in column] for column in zip_longest(*rows.values(), fillvalue="")
    ]
    lines, done = list[str](), 0
    while done < len(columns) and (most is None or len(lines) < most * len(rows)):
        line, width = list[list[str]](), 0
        for column in columns[done:]:
            wide = max(map(cells, column))
            if line and width + wide > left:
                break
            line.append([cell + " " * (wide - cells(cell)) for cell in column])
            width += wide + len(GAP)
        done += len(line)
        for name, parts in zip(rows, zip(*line, strict=True), strict=True):
            lines.append(f"{name:<{first}}{GAP}{GAP.join(parts)}".rstrip())
    return lines, done
