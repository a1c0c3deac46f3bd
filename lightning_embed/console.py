"""Lines for the screen: one aligned line a fact, printed by one process only."""

import contextlib
import io
import os
import sys
import time

from lightning_embed.processes import is_main_process

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


def say(label: str, text: str) -> None:
    """Print `label    text` at once, on the main process."""
    if is_main_process():
        write(f"{label:<9}{text}\n")


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
