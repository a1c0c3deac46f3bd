"""`bar`: how far long work has got, on the last line of a terminal; nothing anywhere else.

    with bar("encoding", total=n_bytes) as advance:
        for batch in batches:
            ...
            advance(batch.n_bytes)

The line comes after a second of work, is rewritten once a second by a thread, fits the terminal as
wide as it is then, and is gone afterwards. What is printed meanwhile comes above it. Where work is
part of other work, the innermost that has lasted a second is shown.
"""

import io
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from lightning_embed.console import cells, columns, duration, mute, short
from lightning_embed.processes import is_main_process

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live

PATIENCE = 1.0  # seconds of work that are not worth a bar
DRAWINGS_PER_SECOND = 1  # each takes 0.6 ms of processor time
PARTS = 5  # of a line that come before a wider drawing of the share
NARROWEST, WIDEST = 8, 30  # columns of that drawing


class State(NamedTuple):
    """How far work is: its share that is done, None where nobody knows, and what to write beside
    it, the most important first."""

    share: float | None
    parts: Sequence[str]


@dataclass(eq=False)
class _Line:
    """Work that is shown, drawn by `rich`."""

    state: Callable[[], State]
    began: float = field(default_factory=time.perf_counter)

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        share, parts = self.state()
        room = options.max_width - 1  # a full line may wrap
        width = drawing_width(parts, room) if share is not None else 0
        if width:
            yield ProgressBar(total=1.0, completed=share or 0.0, width=width)
            yield Text("  ", end="")
            room -= width + 2
        yield Text(fitting(parts, room), no_wrap=True, overflow="crop", end="")


def fitting(parts: Sequence[str], room: int) -> str:
    """The parts in a line of `room` columns: one that does not fit is left out."""
    line = ""
    for part in parts:
        longer = f"{line}  {part}" if line else part
        if cells(longer) <= room:
            line = longer
    return line


def drawing_width(parts: Sequence[str], room: int) -> int:
    """Columns of the share's drawing: half of those that the first parts leave."""
    left = room - cells("  ".join(parts[:PARTS])) - 2
    return 0 if left < NARROWEST else min(WIDEST, max(NARROWEST, left // 2))


# Which lines there are, the innermost last. A terminal has one last line, so it is of the process.
_lines: ContextVar[list[_Line] | None] = ContextVar("lines", default=None)
_wanted: ContextVar[bool] = ContextVar("wanted", default=True)


def possible() -> bool:
    """Whether a bar would be shown: by the main process, on a terminal that can rewrite a line."""
    dumb = os.environ.get("TERM", "").lower() in ("dumb", "unknown")
    return _wanted.get() and sys.stdout.isatty() and not dumb and is_main_process()


@contextmanager
def no_bars() -> Iterator[None]:
    """Show none meanwhile."""
    token = _wanted.set(False)
    try:
        yield
    finally:
        _wanted.reset(token)


@contextmanager
def bar(label: str, total: float | Callable[[], float] = 0.0) -> Iterator[Callable[[float], None]]:
    """Show that some work goes on, and how far it is; yields what is called with each piece done.

    Args:
        label: what is done, in a word or two.
        total: of the pieces; where it is 0, or more is done, no share is shown. A function is
            called when the bar is drawn first.
    """
    began, done, whole = time.perf_counter(), 0.0, total

    def advance(piece: float) -> None:
        nonlocal done
        done += piece

    def state() -> State:
        nonlocal whole
        if callable(whole):
            whole = whole()
        passed = time.perf_counter() - began
        if not 0 < done <= whole:
            return State(None, (label, duration(passed)) + ((short(done),) if done else ()))
        share = done / whole
        left, of = duration(passed / share - passed), f"{short(done)} of {short(whole)}"
        return State(share, (label, f"{100 * share:.0f} %", f"ETA {left}", of))

    with shown(state):
        yield advance


@contextmanager
def shown(state: Callable[[], State]) -> Iterator[None]:
    """Show a line; `state` is called by another thread whenever it is drawn."""
    lines, line = _lines.get(), _Line(state)
    if lines is not None:
        lines.append(line)
        try:
            yield
        finally:
            lines.remove(line)
    elif possible():
        lines = [line]
        token = _lines.set(lines)
        try:
            with _live(lines):
                yield
        finally:
            lines.clear()
            _lines.reset(token)
    else:
        yield


def _live(lines: list[_Line]) -> "Live":
    from rich.console import Console, ConsoleDimensions
    from rich.live import Live
    from rich.text import Text

    class Screen(Console):
        @property  # type: ignore[misc]
        def size(self) -> ConsoleDimensions:
            return ConsoleDimensions(columns(), 25)  # as wide as the other lines

        def show_cursor(self, show: bool = True) -> bool:
            return False  # a killed process could not show it again

    def innermost() -> Any:
        now = time.perf_counter()
        due = [line for line in list(lines) if now - line.began >= PATIENCE]
        return due[-1] if due else Text("", end="")

    screen = Screen(
        file=_Unbreakable(sys.stdout),  # type: ignore[arg-type]
        markup=False,
        highlight=False,
        emoji=False,
    )
    return Live(
        console=screen,
        get_renderable=innermost,
        refresh_per_second=DRAWINGS_PER_SECOND,
        transient=True,
        redirect_stderr=sys.stderr.isatty(),  # a file of its own stays one
    )


class _Unbreakable(io.TextIOBase):
    """Standard output, for `rich`: where it breaks, work goes on."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding

    def fileno(self) -> int:
        return self.stream.fileno()

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except OSError:
            mute()
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError:
            mute()
