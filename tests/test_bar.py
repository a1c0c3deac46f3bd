"""`bar` on terminals of any width, in pipes, and where terminals can do less."""

import contextlib
import io
import sys
import time
from collections.abc import Iterator

import pytest
from rich.live import Live
from terminal import Screen, on_terminal

from lightning_embed import bar as bars
from lightning_embed.bar import bar, drawing_width, fitting, no_bars, possible
from lightning_embed.console import say

LONG = "saving naïve 日本語 of a name with spaces and letters that take two columns, 日本語日本語"

drawings: list[None] = []  # one for each


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars, "PATIENCE", 0.0)
    monkeypatch.setattr(bars, "DRAWINGS_PER_SECOND", 500)
    refresh = Live.refresh

    def counted(self: Live) -> None:
        refresh(self)
        drawings.append(None)

    monkeypatch.setattr(Live, "refresh", counted)
    for name in ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK"):
        monkeypatch.delenv(name, raising=False)


def drawn() -> None:
    """Waits, where there is a bar, until it was drawn as things stand, however busy the machine."""
    wanted = len(drawings) + 2  # one may be under way
    give_up = time.monotonic() + 30
    while bars._lines.get() and len(drawings) < wanted:
        assert time.monotonic() < give_up, "it is not drawn"
        time.sleep(0.001)


def shown_within(screen_of: Screen) -> list[str]:
    return [line for line in dict.fromkeys(screen_of.seen) if line]


def work(label: str = "encoding", pieces: int = 10) -> None:
    with bar(label, 10) as advance:
        for _ in range(pieces):
            advance(1)
            drawn()


@pytest.mark.parametrize("columns", [1, 9, 20, 40, 80, 300, 0])
@pytest.mark.parametrize("label", ["encoding", LONG])
def test_the_bar_is_one_line_and_gone_afterwards(
    monkeypatch: pytest.MonkeyPatch, columns: int, label: str
) -> None:
    with on_terminal(monkeypatch, columns) as screen:
        say("one", "before")
        work(label)
        say("two", "after")
    assert screen.text == "one      before\ntwo      after\n"
    if columns >= 20 or columns == 0:
        assert not screen.wraps and shown_within(screen)
    if label == "encoding" and columns >= 40:
        assert any("ETA 0:00" in line for line in screen.seen)
    if label == "encoding" and columns >= 80:
        assert any(line.startswith("━") and "of 10" in line for line in screen.seen)


def test_what_is_printed_meanwhile_comes_above(monkeypatch: pytest.MonkeyPatch) -> None:
    """By whomever, into either stream."""
    with on_terminal(monkeypatch, 80) as screen:
        monkeypatch.setattr(sys, "stderr", sys.stdout)
        with bar("encoding", 10) as advance:
            advance(5)
            drawn()
            say("note", "[bold]brackets[/bold] and :smile: stay")
            print("in two ", end="", flush=False)
            print("pieces")
            drawn()
            sys.stderr.write("a warning\n")
            drawn()
        monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    assert screen.text == (
        "note     [bold]brackets[/bold] and :smile: stay\nin two pieces\na warning\n"
    )
    assert not screen.wraps and any("50 %" in line for line in screen.seen)


def test_errors_in_a_file_of_their_own_stay_there(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = io.StringIO()
    with on_terminal(monkeypatch, 80) as screen:
        monkeypatch.setattr(sys, "stderr", errors)
        with bar("encoding"):
            drawn()
            print("a line of errors", file=sys.stderr)
    assert screen.text == "\n" and "a line of errors" in errors.getvalue()


def test_the_innermost_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with on_terminal(monkeypatch, 80) as screen, bar("training"):
        drawn()
        with bar("saving"):
            drawn()
        drawn()
    names = [line.split()[0] for line in screen.seen if line]
    changes = [b for a, b in zip(["", *names], names, strict=False) if a != b]
    assert changes == ["training", "saving", "training"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_nothing_is_left_of_work_that_ends_early(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    streams = []
    with on_terminal(monkeypatch, 40) as screen:
        before = sys.stdout
        with contextlib.suppress(error), bar("outer"), bar("inner"):
            drawn()
            raise error
        streams = [sys.stdout is before]
        say("", "over")
        work()
    assert streams == [True] and screen.text == "         over\n"
    assert any("encoding" in line for line in screen.seen)  # the next one is shown


def test_short_work_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars, "PATIENCE", 60.0)
    with on_terminal(monkeypatch, 80) as screen:
        work()
    assert not shown_within(screen)


def pipe() -> Iterator[io.StringIO]:
    yield io.StringIO()


def test_in_a_pipe_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", out)
    work()
    assert out.getvalue() == "" and not possible()


@pytest.mark.parametrize(
    "environment", [{"TERM": "dumb"}, {"TERM": "unknown"}, {"LOCAL_RANK": "1"}]
)
def test_where_there_is_none(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    """A terminal that cannot rewrite a line; a process that is not the first."""
    with on_terminal(monkeypatch, 80, **environment) as screen:
        work()
    assert screen.raw == ""


def test_none_is_shown_if_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    with on_terminal(monkeypatch, 80) as screen:
        with no_bars():
            work()
        assert possible()
    assert screen.raw == ""


def test_without_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    with on_terminal(monkeypatch, 80, NO_COLOR="1") as screen:
        work()
    assert "encoding  50 %" in screen.raw and "m" not in "".join(
        part[0] for part in screen.raw.split("\x1b[")[1:] if part
    )


def test_more_than_expected_has_no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a compressed file, for example."""
    with on_terminal(monkeypatch, 80) as screen:
        work(pieces=15)
    assert "encoding  0:00  11" in screen.seen


def test_the_total_is_asked_for_when_it_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[int]()

    def total() -> int:
        asked.append(1)
        return 4

    with bar("reading", total):
        drawn()
    assert not asked
    with on_terminal(monkeypatch, 80) as screen, bar("reading", total) as advance:
        advance(1)
        drawn()
    assert asked == [1] and any("reading  25 %" in line for line in screen.seen)


def test_a_terminal_that_is_closed_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

        def fileno(self) -> int:
            raise OSError

    monkeypatch.setattr(sys, "stdout", Closed())
    work()
    say("still", "here")


def test_parts_that_do_not_fit_are_left_out() -> None:
    assert fitting(["one", "two", "three", "4"], 11) == "one  two  4"
    assert fitting(["日本", "two"], 8) == "日本"
    assert fitting(["too long"], 3) == ""


@pytest.mark.parametrize(("room", "width"), [(9, 0), (19, 8), (40, 15), (200, 30)])
def test_the_drawing_takes_half_of_what_is_left(room: int, width: int) -> None:
    assert drawing_width(["12345678"], room) == width
