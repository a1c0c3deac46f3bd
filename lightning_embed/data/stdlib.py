"""The default corpus: the source of Python's own standard library, one function or class a piece.

Knows: which files belong to it, how to cut one into documents, which are copies and which are held
out. Leaves to others: storing the documents and describing them to the user (`corpus.py`).

1. files       root/json/decoder.py -> "json/decoder.py", chosen by path *relative* to the library
2. documents   each top-level function and class, decorators included, in order of path and line
3. copies      a document equal to an earlier one goes, before the split, so that no held-out
               document has a copy in training (near-copies remain: a known limit)
4. split       a file is held out when the md5 of its relative path, modulo 10, is 0, and of one
               file at most 20 kB are (otherwise `tarfile` alone would be a third of it)

Code outside functions and classes (30 % of the bytes: imports, tables, one 750 kB file of help
texts) is counted and left out, or becomes one document a file with `module_code`.
"""

from __future__ import annotations

import ast
import gc
import hashlib
import os
import sys
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import decode_source
from pathlib import Path
from typing import NamedTuple

from lightning_embed.errors import UserError

HELD_OUT_BYTES_PER_FILE = 20_000
LEFT_OUT = frozenset({"test", "tests", "idlelib", "lib2to3", "site-packages", "__pycache__"})


class Pieces(NamedTuple):
    """The documents of both splits as (text, relative path), and everything counted."""

    train: list[tuple[str, str]]
    validation: list[tuple[str, str]]
    counts: Counter[str]


def library_root() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def read_sources(root: Path, minimum_bytes: int) -> dict[str, bytes]:
    """The library's source files by posix path relative to `root`, sorted.

    Raises UserError, one line, when they hold fewer than `minimum_bytes`, as in stripped, zipped
    or frozen Pythons.
    """
    sources = {path: (root / path).read_bytes() for path in sorted(_source_paths(root))}
    size = sum(map(len, sources.values()))
    if size < minimum_bytes:
        raise UserError(
            f"this Python has only {size:,} bytes of standard library source in {root} (at least "
            f"{minimum_bytes:,} are needed): give your own text with --data.files"
        )
    return sources


def cut(sources: dict[str, bytes], module_code: bool = False) -> Pieces:
    """Documents of `sources` (posix path -> bytes), without copies, split by file."""
    pieces = Pieces([], [], Counter(files=len(sources)))
    counts = pieces.counts
    seen: set[str] = set()
    with _trees_without_collection():
        for path, source in sources.items():
            try:
                documents, rest = split_source(source)
            except (SyntaxError, ValueError, RecursionError):
                counts["files that do not parse"] += 1
                continue
            if not rest.strip():
                counts["files without module code"] += 1
            elif module_code:
                documents.append(rest)
            else:
                counts["module code bytes left out"] += len(rest.encode())
            held_out, room = is_held_out(path), HELD_OUT_BYTES_PER_FILE
            for text in documents:
                size = len(text.encode())
                if text in seen:
                    counts["exact copies"] += 1
                    counts["exact copies bytes"] += size
                    continue
                seen.add(text)
                if held_out and size > room:
                    counts["held-out documents left out"] += 1
                    counts["held-out bytes left out"] += size
                    continue
                room -= size
                (pieces.validation if held_out else pieces.train).append((text, path))
    return pieces


def is_held_out(path: str) -> bool:
    """Whether the file at this posix path, relative to its corpus, is for validation: 1 in 10."""
    return int(hashlib.md5(path.encode(), usedforsecurity=False).hexdigest(), 16) % 10 == 0


def split_source(source: bytes) -> tuple[list[str], str]:
    """The top-level functions and classes of one module, and the lines outside of them.

    Raises SyntaxError or ValueError for what does not parse (UnicodeDecodeError is one).
    """
    text = decode_source(source)  # minds coding cookies, byte order marks and line ends
    lines = text.split("\n")  # not splitlines(): to the parser a form feed ends no line
    documents, rest, end = [], [], 0
    for node in ast.parse(text).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            first = node.lineno - 1  # the line of `def` or `class`; decorators stand above it
            if node.decorator_list:
                first = node.decorator_list[0].lineno - 1
                while not lines[first].startswith("@"):  # `@(` may stand alone on its line
                    first -= 1
            rest.extend(lines[end:first])
            end = node.end_lineno or node.lineno
            documents.append("\n".join(lines[first:end]))
    rest.extend(lines[end:])
    return documents, "\n".join(rest)


def _source_paths(root: Path) -> Iterator[str]:
    for name in sys.stdlib_module_names - LEFT_OUT:
        if (root / f"{name}.py").is_file():
            yield f"{name}.py"
        for folder, folders, files in os.walk(root / name):
            folders[:] = [f for f in folders if f not in LEFT_OUT]
            relative = Path(folder).relative_to(root).as_posix()
            yield from (f"{relative}/{file}" for file in files if file.endswith(".py"))


@contextmanager
def _trees_without_collection() -> Iterator[None]:
    """Parse quietly and in half the time: a tree is many objects and no garbage."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated escapes in somebody else's source
            yield
    finally:
        if collecting:
            gc.enable()
