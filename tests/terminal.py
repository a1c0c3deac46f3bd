"""A pseudo-terminal for programs that run in this process, and what is on its screen."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


class Screen:
    """The lines of a terminal that is high enough.

    Args:
        columns: its width.
    """

    def __init__(self, columns: int) -> None:
        self.columns, self.raw = columns, ""
        self.lines, self.row, self.column = [""], 0, 0
        self.seen: list[str] = []  # every state of every line, when the cursor left it
        self.wraps = 0

    def feed(self, text: str) -> None:
        self.raw += text
        for piece in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\s\S]", text):
            if piece == "\n":
                self._leave()
                self.row += 1
                self.lines += [""] * (self.row == len(self.lines))
            elif piece == "\r":
                self._leave()
                self.column = 0
            elif re.fullmatch(r"\x1b\[\d*m", piece) or re.fullmatch(r"\x1b\[[\d;]+m", piece):
                pass
            elif piece == "\x1b[2K":
                self.lines[self.row] = ""
            elif piece == "\x1b[1A":
                self.row -= 1
            else:
                assert piece.isprintable(), f"the terminal does not know {piece!r}"
                self._put(piece)

    def _put(self, letter: str) -> None:
        width = 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if self.column + width > self.columns:
            self.wraps += 1
        line = self.lines[self.row]
        assert self.column <= sum(
            2 if unicodedata.east_asian_width(x) in "WF" else 1 for x in line
        ), "a gap"
        if self.column == 0:
            line = ""  # what is written over is shorter than what is erased before
        self.lines[self.row] = line + letter
        self.column += width

    def _leave(self) -> None:
        self.seen.append(self.lines[self.row])

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines).rstrip("\n") + "\n"


@contextmanager
def on_terminal(
    monkeypatch: pytest.MonkeyPatch, columns: int, **environment: str
) -> Iterator[Screen]:
    """Standard output is a terminal of so many columns; its screen is complete after the block."""
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"TERM": "xterm-256color"} | environment).items():
        monkeypatch.setenv(name, value)
    screen = Screen(columns or 80)
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 40 if columns else 0, columns, 0, 0))
    pieces: list[bytes] = []

    def read() -> None:
        while True:
            try:
                piece = os.read(outer, 65536)
            except OSError:  # Linux says so when the other end is closed
                return
            if not piece:
                return
            pieces.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with open(inner, "w", encoding="utf-8") as stream:
            monkeypatch.setattr(sys, "stdout", stream)
            yield screen
            monkeypatch.setattr(sys, "stdout", sys.__stdout__)
    finally:
        reader.join()
        os.close(outer)
    screen.feed(b"".join(pieces).decode())
