"""What is drawn fits, and shows everything that is there."""

import io
import random
import sys

import pytest

from lightning_embed.console import cells
from lightning_embed.inspecting.drawing import aligned, bars, cut
from lightning_embed.inspecting.page import percent


def test_bars_are_as_long_as_their_values() -> None:
    found = bars([8, 4, 1, 0, 0.001], 10)
    assert [cells(bar) for bar in found] == [10, 5, 2, 0, 1]
    assert found[0] == "█" * 10 and found[2] == "█▎" and found[4] == "▏"
    assert bars([0, 0], 10) == ["", ""] and bars([], 10) == []


def test_bars_where_letters_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert bars([8, 4, 0.01, 0], 4) == ["####", "##", "#", ""]


@pytest.mark.parametrize(
    ("text", "room", "shown"),
    [
        ("short", 5, "short"),
        ("longer", 5, "long…"),
        ("你好吗", 5, "你好…"),
        ("a\tb\n\x1b", 20, "a    b \\x1b"),
    ],
)
def test_a_text_is_cut_to_its_room(text: str, room: int, shown: str) -> None:
    assert cut(text, room) == shown and cells(shown) <= room


@pytest.mark.parametrize("room", [12, 20, 31, 71])
def test_cells_stand_above_each_other_and_fit(room: int) -> None:
    draw = random.Random(room)
    words = ["".join(draw.choices("ab你好", k=draw.randint(1, 9))) for _ in range(40)]
    ids = [str(number) for number in range(40)]
    lines, done = aligned({"token": words, "id": ids}, room)
    assert done == 40 and max(map(cells, lines)) <= room
    seen = [word for line in lines[1::2] for word in line.split()[1:]]
    assert seen == ids and all(line.startswith("token  ") for line in lines[::2])
    for above, below in zip(lines[::2], lines[1::2], strict=True):
        assert len(above.split()) == len(below.split())
    few, some = aligned({"token": words, "id": ids}, room, 2)
    assert few == lines[:4] and some == len(few[1].split() + few[3].split()) - 2


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0, "0 %"), (0.00069, "0.069 %"), (0.05, "5 %"), (0.126, "13 %"), (1, "100 %")],
)
def test_percent(share: float, shown: str) -> None:
    assert percent(share) == shown
