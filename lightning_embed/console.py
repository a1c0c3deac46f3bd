"""Lines for the screen: an aligned line a fact, printed by one process only.

A line that is too long goes on below its text: on a terminal at its width, in a pipe or a file at
100 columns. `COLUMNS` in the environment says otherwise. Control characters are told by number.
"""

import contextlib
import io
import os
import re
import shlex
import sys
import time
from itertools import pairwise

from lightning_embed.processes import is_main_process

LABEL = 9  # columns before the text
PLAIN = 100  # columns of a line that goes to no terminal
JOINERS = "\u200c\u200d"  # unseen, within words of Persian and within emoji
LEAST = 20  # of a text, however narrow the terminal

BEGAN = time.perf_counter()  # when the program started: the first module of ours it imports


def prepare() -> None:
    """Make both streams fit to be written to: a closed one swallows what is written, and letters
    that the terminal's encoding lacks are replaced.

    The numbers of closed streams are taken, too: the next file opened, a checkpoint for example,
    would have them, and libraries written in C++ would print into it.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def mute() -> None:
    """Nobody reads any more (`head` has seen enough, the terminal is closed): what comes now goes
    nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(label: str, text: str, anywhere: bool = False) -> None:
    """Print `label    text` at once, on the main process, or on any."""
    if anywhere or is_main_process():
        _print(label, wrapped(printable(text), columns() - LABEL))


def say_command(label: str, text: str) -> None:
    """The same of a command line, which can be pasted also where it takes several lines."""
    if is_main_process():
        words = [shlex.quote(word) for word in shlex.split(text)]
        _print(label, _command_lines(words, columns() - LABEL))


def _print(label: str, lines: list[str]) -> None:
    write("".join(f"{'' if n else label:<{LABEL}}{line}\n" for n, line in enumerate(lines)))


def columns() -> int:
    """How many a line may have."""
    named = os.environ.get("COLUMNS", "")
    if named.isdecimal() and int(named):
        return int(named)
    if not sys.stdout.isatty():
        return PLAIN
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80  # some have 0
    except (OSError, ValueError):
        return 80


def cells(text: str) -> int:
    """Columns that a text takes: some letters take two, others none."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def printable(text: str) -> str:
    """The text as a terminal shows it, whatever it holds: white space is a space, and what controls
    the terminal, turns the writing round or is no letter is told by number."""
    return "".join(
        x if x.isprintable() or x in JOINERS else " " if x.isspace() else ascii(x)[1:-1]
        for x in text.replace("\t", " " * 4)
    )


def wrapped(text: str, room: int) -> list[str]:
    """Lines of `room` columns, cut between words, rather where there are several spaces; a longer
    word stays whole."""
    room, lines, line = max(room, LEAST), list[str](), ""
    for word in re.findall(r"\s*\S+", text):
        if line and cells(line + word) > room:
            gap = line.rfind("  ")
            if gap > len(line) // 2:
                lines.append(line[:gap].rstrip())
                line = line[gap:].lstrip() + word
            else:
                lines.append(line)
                line = word.lstrip()
        else:
            line += word
    return [*lines, line]


def _command_lines(words: list[str], room: int) -> list[str]:
    """Lines that a shell joins; an option stays with its value where both fit."""
    room, pieces = max(room, LEAST) - len(" \\"), list[str]()
    for before, word in pairwise(["", *words]):
        pair = f"{before} {word}"
        if before.startswith("--") and not word.startswith("--") and cells(pair) <= room:
            pieces[-1] = pair
        else:
            pieces.append(word)
    lines = [pieces[0]]
    for piece in pieces[1:]:
        longer = f"{lines[-1]} {piece}"
        if cells(longer) <= room:
            lines[-1] = longer
        else:
            lines[-1] += " \\"
            lines.append(piece)
    return lines


def write(text: str) -> None:
    """Write to standard output at once; where that fails, training goes on to its checkpoint."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:  # a broken pipe, a closed terminal (EIO), a file on a full disk
        mute()


def duration(seconds: float) -> str:
    """`3:07`, or `1:02:05` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def short(number: float) -> str:
    """`950`, `8.7 k`, `2.0 M`."""
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number:.0f}"
