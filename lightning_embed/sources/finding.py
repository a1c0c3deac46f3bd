"""The files that paths, globs, folders and `-` name; their relative names and digests."""

from __future__ import annotations

import functools
import glob
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from lightning_embed.bar import bar
from lightning_embed.errors import UserError

STANDARD_INPUT = "-"


def find_files(
    patterns: Iterable[str],
    wanted: Callable[[str], bool] = lambda name: True,
    left_out: list[str] | None = None,
    flag: str = "--data.files",
) -> list[Path]:
    """The files that are named: patterns in the order given, matches of each sorted.

    `**` reaches into folders, `~` is the home folder, `-` is standard input, a folder means the
    files in it and below. Hidden ones count only where they are named. Links to folders are not
    followed out of a folder that is named.

    Args:
        patterns: paths and globs.
        wanted: which files of a folder to take, by name.
        left_out: takes the paths of the others.
        flag: the option that named them, for messages.

    Raises:
        FileNotFoundError: nothing has this name.
        UserError: there are no patterns, or nothing is wanted of a folder.
        OSError: a folder cannot be read.
    """
    found: dict[str, Path] = {}  # a file named twice, or by links (in a loop, too), counts once
    for pattern in patterns:
        for path in map(Path, _matches(pattern, wanted, left_out, flag)):
            place = os.path.realpath(path)
            named = found.get(place)
            if named is None or len(named.parts) > len(path.absolute().parts):
                found[place] = path.absolute()
    if not found:
        raise UserError(f"{flag} is empty: name at least one file or glob")
    return list(found.values())


def _matches(
    pattern: str, wanted: Callable[[str], bool], left_out: list[str] | None, flag: str
) -> list[str] | list[Path]:
    if pattern == STANDARD_INPUT:
        if sys.stdin is None:
            raise UserError(f"{flag} -: there is no standard input")
        return [standard_input()]
    expanded = os.path.expanduser(pattern)
    if os.path.isdir(expanded):
        files = _below(expanded)
        taken = [path for path in files if wanted(path)]
        if left_out is not None:
            left_out.extend(path for path in files if not wanted(path))
        if not taken:
            raise UserError(
                f"{flag} {pattern!r} is a folder without a file of a known format (of"
                f" {len(files)} files): name files in it, for example"
                f" '{Path(pattern) / '**' / '*.txt'}', or say --data.format text"
            )
        return taken
    if os.path.isfile(expanded):  # first, as `notes[1].txt` may be a name
        return [expanded]
    matches = sorted(filter(os.path.isfile, glob.glob(expanded, recursive=True)))
    if not matches:
        raise FileNotFoundError(f"{flag} {pattern!r}: no such file, and no file matches")
    return matches


def _below(folder: str) -> list[str]:
    """The files in a folder and below, sorted, without hidden ones."""

    def unreadable(error: OSError) -> None:
        raise error

    found = list[str]()
    for place, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (os.path.join(place, name) for name in files if not name.startswith("."))
        found.extend(filter(os.path.isfile, paths))
    return sorted(found)


@functools.cache
def _kept_input() -> tempfile.TemporaryDirectory[str]:
    """A folder with all of standard input, which can be read only once in a process."""
    folder = tempfile.TemporaryDirectory(prefix="lightning_embed-")
    with open(Path(folder.name) / STANDARD_INPUT, "wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
    return folder


def standard_input() -> Path:
    """A file with what standard input had; gone when the process ends."""
    return Path(_kept_input().name, STANDARD_INPUT)


def is_standard_input(path: Path) -> bool:
    return _kept_input.cache_info().currsize > 0 and path == standard_input()


def relative_names(paths: list[Path]) -> list[str]:
    """Each path relative to the folder that all share, in posix form; bytes of a name that are not
    UTF-8 are spelled out."""
    parents = [path.parent for path in paths if not is_standard_input(path)]
    shared = os.path.commonpath(parents) if parents else ""
    return [
        STANDARD_INPUT
        if is_standard_input(path)
        else utf8_name(path.relative_to(shared).as_posix())
        for path in paths
    ]


def utf8_name(name: str) -> str:
    """A file's name as text that can be written as UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()


def digests(paths: list[Path]) -> list[tuple[str, str]]:
    """Relative name and digest of each file, read in pieces."""
    found = []
    names = relative_names(paths) if paths else []
    sizes = [path.stat().st_size for path in paths]
    with bar("looking through the text", sum(sizes)) as advance:
        for name, path, size in zip(names, paths, sizes, strict=True):
            with open(path, "rb") as file:
                found.append((name, hashlib.file_digest(file, "sha256").hexdigest()))
            advance(size)
    return found
