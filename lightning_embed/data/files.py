"""A user's own files as a source: finding them, reading each by its suffix, what is held out.

A new format is a reader like those of `formats.py`, in a file of its own, and a line in `READERS`.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lightning_embed.bar import bar
from lightning_embed.data.formats import Reader, csv_rows, jsonl_rows, parquet_rows, whole_text
from lightning_embed.data.source import (
    About,
    Document,
    drained,
    fingerprint_of,
    is_held_out,
    utf8_size,
)
from lightning_embed.errors import UserError

READERS: dict[str, Reader] = {  # by suffix; any other file is one text
    ".jsonl": jsonl_rows,
    ".ndjson": jsonl_rows,
    ".csv": csv_rows,
    ".parquet": parquet_rows,
}
FEWEST_FILES_TO_SPLIT_BY_NAME = 20
TRAIN_SHARE = 0.9
HELD_BYTES = 100_000_000  # of text kept in memory until its whole length is known


@dataclass(frozen=True)
class FilesCorpus:
    """Local files or globs: a text file is a document; of jsonl, csv and parquet each row is one.

    Below 20 files the last 10 % of the text are held out (in bytes, files in order; the document on
    the line is cut there, a single one at `int(characters * 0.9)`). From 20 files on, a file is
    held out when the md5 of its path relative to the folder all share, modulo 10, is 0.

    Args:
        files: paths and globs.
        text_column: where rows keep the text.
        whole: hold all of it out, to score a text that a model was not trained on.
        flag: the option that named the files, for messages.
    """

    files: tuple[str, ...]
    text_column: str = "text"
    whole: bool = False
    flag: str = "--data.files"

    @cached_property
    def fingerprint(self) -> str:
        whole = ("whole",) if self.whole else ()
        return fingerprint_of(
            "files", digests(find_files(self.files, self.flag)), self.text_column, *whole
        )

    @property
    def name_of_text(self) -> str:
        patterns = ", ".join(os.path.abspath(os.path.expanduser(name)) for name in self.files)
        column = "" if self.text_column == "text" else f" (column {self.text_column!r})"
        return f"--data.files {patterns}{column}"

    @property
    def n_bytes(self) -> int:
        return sum(path.stat().st_size for path in find_files(self.files, self.flag))

    def documents(self, about: About) -> Iterator[Document]:
        paths = find_files(self.files, self.flag)
        files = dict(zip(relative_names(paths), paths, strict=True))
        about.title = title_of(list(files))
        about.counts["files"] = len(files)
        rows = {path.suffix.lower() for path in paths} & {".json", ".tsv"}
        if rows:
            about.notes.append(
                f"{' and '.join(sorted(rows))} files are taken as plain text, one document each;"
                " rows are read of jsonl, csv and parquet"
            )
        about.whole = self.whole
        if self.whole:
            used = dict[str, None]()
            for text, name in self._usable(files, about.counts):
                used[name] = None
                yield Document(text, name, held_out=True)
            about.title = title_of(list(used))
        elif held_out := held_out_by_name(files):
            yield from self._split_by_name(files, held_out, about)
        else:
            yield from self._split_by_size(files, about)
        about.note_set_aside()

    def _split_by_name(
        self, files: dict[str, Path], held_out: set[str], about: About
    ) -> Iterator[Document]:
        found = set[str]()
        for text, name in self._usable(files, about.counts):
            found.add(name)
            yield Document(text, name, name in held_out)
        about.notes.append(f"held out: {len(found & held_out)} of {len(found)} files, by name")

    def _split_by_size(self, files: dict[str, Path], about: About) -> Iterator[Document]:
        """The line between the splits is known after the last text: so much is kept in memory, and
        files with more are read a second time."""
        kept: deque[tuple[str, str]] = deque()
        total, all_kept = 0, True
        for text, name in self._usable(files, about.counts):
            total += utf8_size(text)
            all_kept = all_kept and (
                total <= HELD_BYTES or not kept
            )  # one text is in memory anyway
            if all_kept:
                kept.append((text, name))
            else:
                kept.clear()
        yield from last_tenth(drained(kept) if all_kept else self._usable(files, Counter()), total)
        why = (
            "" if len(files) < FEWEST_FILES_TO_SPLIT_BY_NAME else ", as no file's name falls there"
        )
        about.notes.append(f"held out: the last 10 % of the text{why}")

    def _usable(self, files: dict[str, Path], counts: Counter[str]) -> Iterator[tuple[str, str]]:
        """Texts and the names of their files, without empty texts and copies of earlier ones."""
        seen: set[bytes] = set()  # digests, as the texts may not fit into memory
        for name, path in files.items():
            for text in read_texts(path, self.text_column):
                if not text or text.isspace():
                    counts["empty documents"] += 1
                    continue
                digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
                if digest in seen:
                    counts["exact copies"] += 1
                    continue
                seen.add(digest)
                yield text, name
        if not seen:
            raise UserError(
                f"no usable document in the {len(files)} file(s) of {self.flag}: "
                f"{counts['empty documents']} empty"
            )


def title_of(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} files, {names[0]} to {names[-1]}"


def held_out_by_name(files: dict[str, Path]) -> set[str]:
    """Which files are for validation; none where the rule by name cannot be applied."""
    if len(files) < FEWEST_FILES_TO_SPLIT_BY_NAME:
        return set()
    names = {name for name, path in files.items() if path.stat().st_size}
    held_out = set(filter(is_held_out, names))
    return held_out if held_out < names else set()


def last_tenth(texts: Iterable[tuple[str, str]], total: int) -> Iterator[Document]:
    """Hold out what lies beyond 90 % of `total` bytes; the document on the line is cut in two."""
    before = 0
    for text, name in texts:
        size = utf8_size(text)
        # rounded, so that a single document is cut at exactly int(characters * 0.9)
        share = round((TRAIN_SHARE * total - before) / size, 12)
        line = int(len(text) * min(max(share, 0.0), 1.0))
        before += size
        if line > 0:
            yield Document(text[:line], name)
        if line < len(text):
            yield Document(text[line:], name, held_out=True)


def read_texts(path: Path, text_column: str) -> Iterator[str]:
    """The texts of one file, in order; a blank line of jsonl or csv gives an empty one.

    Raises UserError, one line with the file and the line, row or byte, for what is not UTF-8, does
    not parse, lacks the column, or holds something else than text there.
    """
    reader = READERS.get(path.suffix.lower(), whole_text)
    try:
        for where, text in reader(path, text_column):
            if not isinstance(text, str):
                kind = "null" if text is None else type(text).__name__
                raise UserError(
                    f"{where}: column {text_column!r} is {kind}, not text; correct the file or "
                    "name another column with --data.text_column"
                )
            if not _is_unicode(text):
                raise UserError(f"{where}: half a surrogate pair, which UTF-8 cannot hold")
            yield text
    except UnicodeDecodeError:
        list(whole_text(path, text_column))  # raises, with the byte's position in the file
        raise


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def find_files(patterns: Iterable[str], flag: str = "--data.files") -> list[Path]:
    """The files that paths and globs name: patterns in the order given, matches of each sorted.

    `**` reaches into folders (not hidden ones), `~` is the home folder. A folder is refused: which
    of its files are text is for the user to say. Raises FileNotFoundError or UserError.
    """
    found: dict[str, Path] = {}  # a file named twice, or by links (in a loop, too), counts once
    for pattern in patterns:
        expanded = os.path.expanduser(pattern)
        if os.path.isdir(expanded):
            raise UserError(
                f"{flag} {pattern!r} is a folder: name files in it, for example "
                f"'{Path(pattern) / '**' / '*.txt'}'"
            )
        if os.path.isfile(expanded):  # first, as `notes[1].txt` may be a name
            matches = [expanded]
        else:
            matches = sorted(filter(os.path.isfile, glob.glob(expanded, recursive=True)))
        if not matches:
            raise FileNotFoundError(f"{flag} {pattern!r}: no such file, and no file matches")
        for path in map(Path, matches):
            place = os.path.realpath(path)
            named = found.get(place)
            if named is None or len(named.parts) > len(path.absolute().parts):
                found[place] = path.absolute()
    if not found:
        raise UserError(f"{flag} is empty: name at least one file or glob")
    return list(found.values())


def relative_names(paths: list[Path]) -> list[str]:
    """Each path relative to the folder that all share, in posix form."""
    shared = os.path.commonpath([path.parent for path in paths])
    return [path.relative_to(shared).as_posix() for path in paths]


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
