"""A user's own files as a source: what of them is usable. What is held out is in `held_out.py`."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from lightning_embed.errors import UserError
from lightning_embed.sources.finding import (
    STANDARD_INPUT,
    digests,
    find_files,
    is_standard_input,
    relative_names,
    utf8_name,
)
from lightning_embed.sources.formats import Format, Text, format_of, is_known, texts_of
from lightning_embed.sources.held_out import (
    AS_EVER,
    FEWEST_FILES_TO_SPLIT_BY_NAME,
    SplitRule,
    cut,
    last_share,
    stable_names,
)
from lightning_embed.sources.opening import suffixes
from lightning_embed.sources.source import About, Document, drained, fingerprint_of
from lightning_embed.sources.texts import DocumentRule
from lightning_embed.sources.usable import File, Usable, documents_of

HELD_BYTES = 100_000_000  # of text kept in memory until its whole length is known
TEXT_IN_A_PACKED_BYTE = 4  # of compressed files and archives, for estimates
NAMES_SHOWN = 3
VALIDATION_FLAG = "--data.validation"
WHOLE_FILES = DocumentRule()
FORMATS_AT_FIRST = {  # of version 0.2, to which every other file was text
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
}


@dataclass(frozen=True)
class FilesCorpus:
    """Local files, globs and folders: text is a document a file, of records each row is one.

    Below 20 files the last 10 % of the text are held out, a single document from
    `int(characters * 0.9)` on; from 20 files on, a file is held out when the md5 of its path,
    relative to the folder all share, modulo 10, is 0. See `held_out.py` for other ways.

    Args:
        files: paths, globs and folders; `-` is standard input.
        text_column: where rows keep the text: a column, or a dotted path to a nested one.
        whole: hold all of it out, to score a text that a model was not trained on.
        rule: what a document is in text.
        format: of all files, whatever their suffixes; standard input is text without it.
        flag: the option that named the files, for messages.
        split: what is held out, where no files are given for that.
        validation: paths, globs and folders of which all is held out; all else trains.
    """

    files: tuple[str, ...]
    text_column: str = "text"
    whole: bool = False
    rule: DocumentRule = WHOLE_FILES
    format: Format | None = None
    flag: str = "--data.files"
    split: SplitRule = AS_EVER
    validation: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.validation and self.split != AS_EVER:
            raise UserError(
                f"--data.validation {self.validation[0]} says what is held out: leave out"
                " --data.split and --data.validation_share"
            )

    @cached_property
    def _named(self) -> tuple[list[File], list[str], int]:
        """The files, those given for validation last; those of folders that are left out, as
        nothing is known of them; and how many are named for both splits."""
        left_out = list[str]()
        anything = self.format is not None

        def find(patterns: tuple[str, ...], flag: str) -> list[Path]:
            return find_files(patterns, lambda name: anything or is_known(name), left_out, flag)

        paths = find(self.files, self.flag)
        given = find(self.validation, VALIDATION_FLAG) if self.validation else []
        places = {os.path.realpath(path) for path in given}
        trains = [path for path in paths if os.path.realpath(path) not in places]
        all_of_them = trains + given
        files = [
            File(name, path, self._format_of(path), held_out=number >= len(trains))
            for number, (name, path) in enumerate(
                zip(relative_names(all_of_them), all_of_them, strict=True)
            )
        ]
        return files, left_out, len(paths) - len(trains)

    @cached_property
    def _found(self) -> tuple[list[File], list[str]]:
        """The same, where all options have an effect on them."""
        files, left_out, _ = self._named
        self._refuse_what_has_no_effect(files)
        return files, left_out

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
        if self.split != AS_EVER:
            options.append(str(self.split))
            if self.split.kind == "name":
                options.append(sorted(self._hashed_names.items()))
        if self.validation:
            options.append(["held out", [file.name for file in files if file.held_out]])
        found = digests([file.path for file in files])
        return fingerprint_of("files", found, self.text_column, *options)

    @property
    def name_of_text(self) -> str:
        patterns, validation = map(absolute, (self.files, self.validation))
        column = "" if self.text_column == "text" else f" (column {self.text_column!r})"
        rule = "" if self.rule == WHOLE_FILES else f" ({self.rule})"
        split = "" if self.split == AS_EVER else f" ({self.split})"
        held_out = f" ({VALIDATION_FLAG} {validation})" if validation else ""
        return f"--data.files {patterns}{column}{rule}{split}{held_out}"

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
        elif self.validation:
            yield from self._split_as_given(about, members)
        elif held_out := self.split.by_name(self._hashed_names, len(files)):
            yield from self._split_by_name(held_out, about, members)
        else:
            yield from self._split_by_size(about, members)
        note_left_out([*left_out, *members], about)
        about.note_set_aside()

    @property
    def _hashed_names(self) -> dict[str, str]:
        """Of each file with text in it, the name by which it is held out or not."""
        files = [file for file in self._found[0] if file.path.stat().st_size]
        names = [file.name for file in files]
        if self.split.kind == "name":
            stable = stable_names(self.files, [file.path for file in files])
            return dict(zip(names, stable, strict=True))
        return dict(zip(names, names, strict=True))

    def _split_as_given(self, about: About, members: list[str]) -> Iterator[Document]:
        """What stands in the files for validation is no training text, wherever it stands."""
        files, _ = self._found
        given = [file for file in files if file.held_out]
        if len(given) == len(files):
            raise UserError(
                f"{VALIDATION_FLAG} names all files of {self.flag}: none are left to train on"
            )
        digests = {digest for file in given for _, digest in self._documents_of(file)}
        for text in self._usable(about.counts, members, digests):
            yield from cut(text, text.n_characters)
        for text in self._usable(about.counts, members, held_out=True):
            yield from cut(text, 0)
        both = self._named[2]
        also = f"; {both} of them stand in {self.flag} too and train nothing" if both else ""
        about.notes.append(f"held out: {len(given)} files of {VALIDATION_FLAG}{also}")

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
        texts = drained(kept) if all_kept else self._usable(Counter(), [])
        yield from last_share(texts, total, self.split.share)
        few = len(self._found[0]) < FEWEST_FILES_TO_SPLIT_BY_NAME
        why = "" if few or self.split.kind == "end" else ", as no file's name falls there"
        about.notes.append(f"held out: the last {self.split.percent} of the text{why}")

    def _texts(self, file: File, members: list[str] | None = None) -> Iterator[Text]:
        asked = file.format if is_standard_input(file.path) else self.format
        return texts_of(file.path, str(file.path), self.text_column, self.rule, asked, members)

    def _usable(
        self,
        counts: Counter[str],
        members: list[str],
        but: Container[bytes] = (),
        held_out: bool = False,
    ) -> Iterator[Usable]:
        """Documents without empty ones and copies of earlier ones.

        Args:
            counts: takes how many were set aside.
            members: takes those of archives that are left out.
            but: digests of documents for validation, which are no training text.
            held_out: of the files that are given for validation.
        """
        seen: set[bytes] = set()  # digests, as the texts may not fit into memory
        files = [file for file in self._found[0] if file.held_out is held_out]
        for file in files:
            for document, digest in self._documents_of(file, members):
                if document is None:
                    counts["empty documents"] += 1
                elif digest in seen:
                    counts["exact copies"] += 1
                elif digest in but:
                    counts["copies of held-out documents"] += 1
                else:
                    seen.add(digest)
                    yield document
        if not seen:
            names = first_of([str(file.path) for file in files])
            raise UserError(
                f"no usable document in the {len(files)} file(s) of"
                f" {VALIDATION_FLAG if held_out else self.flag} ({names}):"
                f" {counts['empty documents']} empty"
            )

    def _documents_of(
        self, file: File, members: list[str] | None = None
    ) -> Iterator[tuple[Usable | None, bytes]]:
        return documents_of(
            file, partial(self._texts, file, members), again=partial(self._texts, file)
        )


def format_at_first(file: File) -> str:
    """How version 0.2 read a file."""
    suffix = file.path.suffix.lower()
    return FORMATS_AT_FIRST.get(suffix, "text")


def absolute(patterns: Iterable[str]) -> str:
    """Patterns as they can be written, wherever they are read."""
    return utf8_name(
        ", ".join(
            name if name == STANDARD_INPUT else os.path.abspath(os.path.expanduser(name))
            for name in patterns
        )
    )


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
    return ", ".join(map(utf8_name, names[:NAMES_SHOWN])) + more


def title_of(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} files, {names[0]} to {names[-1]}"
