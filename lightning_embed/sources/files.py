"""A user's own files as a source: what of them is usable, and what is held out."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

from lightning_embed.errors import UserError
from lightning_embed.sources.finding import (
    STANDARD_INPUT,
    digests,
    find_files,
    is_standard_input,
    printable,
    relative_names,
)
from lightning_embed.sources.formats import Format, Text, format_of, is_known, texts_of
from lightning_embed.sources.opening import suffixes
from lightning_embed.sources.source import (
    About,
    Document,
    drained,
    fingerprint_of,
    is_held_out,
)
from lightning_embed.sources.texts import DocumentRule

FEWEST_FILES_TO_SPLIT_BY_NAME = 20
TRAIN_SHARE = 0.9
HELD_BYTES = 100_000_000  # of text kept in memory until its whole length is known
HELD_DOCUMENT = 16_000_000  # characters; a longer document is read again when it is needed
TEXT_IN_A_PACKED_BYTE = 4  # of compressed files and archives, for estimates
NAMES_SHOWN = 3
WHOLE_FILES = DocumentRule()
FORMATS_AT_FIRST = {  # of version 0.2, to which every other file was text
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
}


class File(NamedTuple):
    """A file that is read.

    Attributes:
        name: relative to the folder that all files share.
        path: where it is.
        format: None of an archive.
    """

    name: str
    path: Path
    format: Format | None


class Usable(NamedTuple):
    """A document with text in it, read to its end.

    Attributes:
        file: the name of its file.
        source: the same, or with it the name of the member of an archive.
        n_bytes: in UTF-8.
        n_characters: of all pieces.
        pieces: a list, or what reads them from the file again.
    """

    file: str
    source: str
    n_bytes: int
    n_characters: int
    pieces: Iterable[str]


@dataclass(frozen=True)
class FilesCorpus:
    """Local files, globs and folders: text is a document a file, of records each row is one.

    Below 20 files the last 10 % of the text are held out (in bytes, files in order; the document on
    the line is cut there, a single one at `int(characters * 0.9)`). From 20 files on, a file is
    held out when the md5 of its path relative to the folder all share, modulo 10, is 0.

    Args:
        files: paths, globs and folders; `-` is standard input.
        text_column: where rows keep the text: a column, or a dotted path to a nested one.
        whole: hold all of it out, to score a text that a model was not trained on.
        rule: what a document is in text.
        format: of all files, whatever their suffixes; standard input is text without it.
        flag: the option that named the files, for messages.
    """

    files: tuple[str, ...]
    text_column: str = "text"
    whole: bool = False
    rule: DocumentRule = WHOLE_FILES
    format: Format | None = None
    flag: str = "--data.files"

    @cached_property
    def _named(self) -> tuple[list[File], list[str]]:
        """The files; and those of folders that are left out, as nothing is known of them."""
        left_out = list[str]()
        anything = self.format is not None
        paths = find_files(self.files, lambda name: anything or is_known(name), left_out, self.flag)
        files = [
            File(name, path, self._format_of(path))
            for name, path in zip(relative_names(paths), paths, strict=True)
        ]
        return files, left_out

    @cached_property
    def _found(self) -> tuple[list[File], list[str]]:
        """The same, where all options have an effect on them."""
        self._refuse_what_has_no_effect(self._named[0])
        return self._named

    @property
    def is_text(self) -> bool:
        """Whether no file has columns; an archive may."""
        return {file.format for file in self._named[0]} == {"text"}

    def _format_of(self, path: Path) -> Format | None:
        if is_standard_input(path):
            return self.format or "text"
        return format_of(str(path), self.format)

    def _refuse_what_has_no_effect(self, files: list[File]) -> None:
        formats = {file.format for file in files}  # an archive may hold anything
        if self.text_column != "text" and self.is_text:
            raise UserError(
                f"--data.text_column {self.text_column} needs files with columns, and"
                f" {files[0].path} is text: leave it out, or name the files' format with"
                " --data.format"
            )
        if self.rule.kind != "file" and not formats & {"text", None}:
            raise UserError(
                f"--data.document {self.rule.kind} is for text, and of {files[0].path} each row"
                " is a document: leave it out"
            )

    @cached_property
    def fingerprint(self) -> str:
        files, _ = self._found
        options: list[Any] = ["whole"] if self.whole else []
        changed = [
            (file.name, file.format) for file in files if file.format != format_at_first(file)
        ]
        if changed:  # what is read as ever keeps its fingerprint
            options.append(changed)
        if self.rule != WHOLE_FILES:
            options.append([self.rule.kind, self.rule.separator])
        found = digests([file.path for file in files])
        return fingerprint_of("files", found, self.text_column, *options)

    @property
    def name_of_text(self) -> str:
        patterns = ", ".join(
            name if name == STANDARD_INPUT else os.path.abspath(os.path.expanduser(name))
            for name in self.files
        )
        column = "" if self.text_column == "text" else f" (column {self.text_column!r})"
        rule = "" if self.rule == WHOLE_FILES else f" ({self.rule})"
        return f"--data.files {printable(patterns)}{column}{rule}"

    @property
    def n_bytes(self) -> int:
        """Of text; an estimate where it is compressed."""
        return sum(
            file.path.stat().st_size * (TEXT_IN_A_PACKED_BYTE if is_packed(file) else 1)
            for file in self._found[0]
        )

    def beginning(self, characters: int) -> str:
        """About so much of the text."""
        found, room = list[str](), characters
        for file in self._found[0]:
            for text in self._texts(file):
                found.append(text.piece.text[:room])
                room -= len(found[-1])
                if room <= 0:
                    return "\n".join(found)
        return "\n".join(found)

    def documents(self, about: About) -> Iterator[Document]:
        files, left_out = self._found
        about.title = title_of([file.name for file in files])
        about.counts["files"] = len(files)
        members = list[str]()
        about.whole = self.whole
        if self.whole:
            used = dict[str, None]()
            for text in self._usable(about.counts, members):
                used[text.file] = None
                yield from cut(text, 0)
            about.title = title_of(list(used))
        elif held_out := held_out_by_name(files):
            yield from self._split_by_name(held_out, about, members)
        else:
            yield from self._split_by_size(about, members)
        note_left_out([*left_out, *members], about)
        about.note_set_aside()

    def _split_by_name(
        self, held_out: set[str], about: About, members: list[str]
    ) -> Iterator[Document]:
        found = set[str]()
        for text in self._usable(about.counts, members):
            found.add(text.file)
            yield from cut(text, 0 if text.file in held_out else text.n_characters)
        about.notes.append(f"held out: {len(found & held_out)} of {len(found)} files, by name")

    def _split_by_size(self, about: About, members: list[str]) -> Iterator[Document]:
        """The line between the splits is known after the last text: so much is kept in memory, and
        files with more are read a second time."""
        kept: deque[Usable] = deque()
        total, in_memory, all_kept = 0, 0, True
        for text in self._usable(about.counts, members):
            total += text.n_bytes
            in_memory += text.n_bytes if isinstance(text.pieces, list) else 0
            all_kept = all_kept and in_memory <= HELD_BYTES
            if all_kept:
                kept.append(text)
            else:
                kept.clear()
        yield from last_tenth(drained(kept) if all_kept else self._usable(Counter(), []), total)
        few = len(self._found[0]) < FEWEST_FILES_TO_SPLIT_BY_NAME
        why = "" if few else ", as no file's name falls there"
        about.notes.append(f"held out: the last 10 % of the text{why}")

    def _texts(self, file: File, members: list[str] | None = None) -> Iterator[Text]:
        asked = file.format if is_standard_input(file.path) else self.format
        return texts_of(file.path, str(file.path), self.text_column, self.rule, asked, members)

    def _usable(self, counts: Counter[str], members: list[str]) -> Iterator[Usable]:
        """Documents without empty ones and copies of earlier ones; members of archives that are
        left out are added to the list."""
        seen: set[bytes] = set()  # digests, as the texts may not fit into memory
        files, _ = self._found
        for file in files:
            for document, digest in self._documents_of(file, members):
                if document is None:
                    counts["empty documents"] += 1
                elif digest in seen:
                    counts["exact copies"] += 1
                else:
                    seen.add(digest)
                    yield document
        if not seen:
            names = first_of([str(file.path) for file in files])
            raise UserError(
                f"no usable document in the {len(files)} file(s) of {self.flag} ({names}): "
                f"{counts['empty documents']} empty"
            )

    def _documents_of(
        self, file: File, members: list[str]
    ) -> Iterator[tuple[Usable | None, bytes]]:
        """Documents, None where there is no text, and their digests."""
        number = -1
        for piece, name in self._texts(file, members):
            if piece.begins:
                pieces, n_bytes, n_characters, blank = list[str](), 0, 0, True
                digest, number = hashlib.blake2b(digest_size=16), number + 1
            encoded = piece.text.encode()
            digest.update(encoded)
            n_bytes += len(encoded)
            n_characters += len(piece.text)
            blank = blank and (not piece.text or piece.text.isspace())
            if n_characters <= HELD_DOCUMENT or piece.begins:
                pieces.append(piece.text)
            else:
                pieces.clear()
            if not piece.ends:
                continue
            if blank:
                yield None, b""
                continue
            read_again = ReadAgain(partial(self._texts, file), number, digest.digest(), file)
            source = file.name + name.removeprefix(str(file.path))
            found = Usable(file.name, source, n_bytes, n_characters, pieces or read_again)
            yield found, digest.digest()


@dataclass(frozen=True)
class ReadAgain:
    """A document that is too long to be kept in memory: read from its file each time."""

    texts: Callable[[], Iterator[Text]]
    number: int  # of the document in its file
    digest: bytes
    file: File

    def __iter__(self) -> Iterator[str]:
        number, digest = -1, hashlib.blake2b(digest_size=16)
        for piece, _ in self.texts():
            number += piece.begins
            if number > self.number:
                break
            if number == self.number:
                digest.update(piece.text.encode())
                yield piece.text
        if digest.digest() != self.digest:
            raise UserError(f"{self.file.path} changed while it was read: begin again")


def format_at_first(file: File) -> str:
    """How version 0.2 read a file."""
    suffix = file.path.suffix.lower()
    return FORMATS_AT_FIRST.get(suffix, "text")


def is_packed(file: File) -> bool:
    suffix, packed = suffixes(file.path.name)
    return bool(packed) or suffix == ".zip"


def note_left_out(names: list[str], about: About) -> None:
    if names:
        about.counts["files left out"] = len(names)
        about.notes.append(
            f"left out: {len(names):,} files of which no format is known ({first_of(names)})"
        )


def first_of(names: list[str]) -> str:
    more = ", ..." if len(names) > NAMES_SHOWN else ""
    return ", ".join(map(printable, names[:NAMES_SHOWN])) + more


def title_of(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} files, {names[0]} to {names[-1]}"


def held_out_by_name(files: list[File]) -> set[str]:
    """Which files are for validation; none where the rule by name cannot be applied."""
    if len(files) < FEWEST_FILES_TO_SPLIT_BY_NAME:
        return set()
    names = {file.name for file in files if file.path.stat().st_size}
    held_out = set(filter(is_held_out, names))
    return held_out if held_out < names else set()


def last_tenth(texts: Iterable[Usable], total: int) -> Iterator[Document]:
    """Hold out what lies beyond 90 % of `total` bytes; the document on the line is cut in two."""
    before = 0
    for text in texts:
        # rounded, so that a single document is cut at exactly int(characters * 0.9)
        share = round((TRAIN_SHARE * total - before) / text.n_bytes, 12)
        before += text.n_bytes
        yield from cut(text, int(text.n_characters * min(max(share, 0.0), 1.0)))


def cut(text: Usable, line: int) -> Iterator[Document]:
    """The document in pieces, held out from character `line` on; on both sides of it stand
    documents of their own."""
    at, end = 0, text.n_characters
    for piece in text.pieces:
        middle = min(max(line - at, 0), len(piece))
        for start, stop in ((0, middle), (middle, len(piece))):
            if start < stop:
                begins, ends = at + start in (0, line), at + stop in (line, end)
                held_out = at + start >= line
                yield Document(piece[start:stop], text.source, held_out, begins, ends)
        at += len(piece)
