"""The default corpus: the source of Python's own standard library, a function or class a document.

1. files       root/json/decoder.py -> "json/decoder.py", chosen by path *relative* to the library
2. documents   each top-level function and class, decorators included, in order of path and line
3. copies      a document equal to an earlier one is left out, before the split, so that no held-out
               document has a copy in training (near-copies remain: a known limit)
4. split       a file is held out when the md5 of its relative path, modulo 10, is 0, and of one
               file at most 20 kB are (otherwise `tarfile` alone would be a third of it)

Code outside functions and classes (30 % of the bytes: imports, tables, one 750 kB file of help
texts) is left out and counted.
"""

from __future__ import annotations

import ast
import gc
import hashlib
import os
import platform
import sys
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import decode_source
from pathlib import Path

from lightning_embed.errors import UserError
from lightning_embed.sources.held_out import is_held_out
from lightning_embed.sources.source import About, Document, fingerprint_of, utf8_size

HELD_OUT_BYTES_PER_FILE = 20_000
LEFT_OUT = frozenset({"test", "tests", "idlelib", "lib2to3", "site-packages", "__pycache__"})


@dataclass(frozen=True)
class StdlibCorpus:
    """The standard library's own source: on every machine, no network needed.

    Args:
        root: the library's folder, this Python's own when None.
        minimum_bytes: UserError when there is less source than that.
    """

    root: Path | None = None
    minimum_bytes: int = 3_000_000

    @cached_property
    def fingerprint(self) -> str:
        sources = self._sources()
        contents = [(path, hashlib.sha256(source).hexdigest()) for path, source in sources.items()]
        # False: an option that is gone; without it tokens prepared before would not be found.
        return fingerprint_of("stdlib", contents, False)

    @property
    def name_of_text(self) -> str:
        return "the standard library"

    @property
    def n_bytes(self) -> int:
        return sum(map(len, self._sources().values()))

    def documents(self, about: About) -> Iterator[Document]:
        sources = self._sources()
        counts = about.counts
        counts["files"] = len(sources)
        version = platform.python_version()
        about.title = f"standard library of Python {version}: {len(sources)} files"
        yield from cut(sources, counts)
        about.note_set_aside()
        share = counts["module code bytes left out"] / sum(map(len, sources.values()))
        about.notes.append(
            f"{100 * share:.0f} % of the source is outside functions and classes: left out"
        )

    def _sources(self) -> dict[str, bytes]:
        return read_sources(self.root or library_root(), self.minimum_bytes)


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


def cut(sources: dict[str, bytes], counts: Counter[str]) -> Iterator[Document]:
    """Documents of `sources` (posix path -> bytes), without copies, split by file.

    What is left out is counted in `counts`.
    """
    seen: set[str] = set()
    for path, source in sources.items():
        try:
            with _quick_parsing():
                texts, rest = split_source(source)
        except (SyntaxError, ValueError, RecursionError):
            counts["files that do not parse"] += 1
            continue
        if rest.strip():
            counts["module code bytes left out"] += len(rest.encode())
        else:
            counts["files without module code"] += 1
        held_out, room = is_held_out(path), HELD_OUT_BYTES_PER_FILE
        for text in texts:
            size = utf8_size(text)
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
            yield Document(text, path, held_out)


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
def _quick_parsing() -> Iterator[None]:
    """Without warnings, and in half the time without garbage collection: a tree is many objects,
    all of them in use."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated escapes in somebody else's source
            yield
    finally:
        if collecting:
            gc.enable()
