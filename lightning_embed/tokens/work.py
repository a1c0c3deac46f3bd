"""A prepared folder in the making: written shard after shard, so that a killed run goes on.

    <cache_dir>/.<key>.lock         held by the process at work (`lock.py`)
    <cache_dir>/.<key>.work/
        progress.json               up to where the files are safe, and of which documents
        {train,validation}.rows     three numbers for each document
        {train,validation}.names    of sources, as they came
        folder/                     becomes <cache_dir>/<key>

After each shard of text the files are on the disk before `progress.json` says so. Whoever goes on
cuts them there, reads the text again up to the same document, which takes a small part of the time
that encoding does, and checks that it still is the same text.
"""

from __future__ import annotations

import json
import re
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightning_embed.atomic import remove, replacing
from lightning_embed.sources.source import Document, Mark
from lightning_embed.tokens.lock import locked_if_free
from lightning_embed.tokens.split_writer import CannotGoOn

VERSION = 1  # raise it when what a killed run left cannot be gone on with
SHARD = 16_000_000  # bytes of text; as much may be encoded ahead of what is written
KEY = re.compile(r"[0-9a-f]{16}")  # the name of a prepared folder; no other is touched
ABANDONED_AFTER = 7 * 86_400  # seconds
PROGRESS = "progress.json"


@dataclass
class Progress:
    """How much is done, and what is needed to go on."""

    vocabulary_asked: int | None = None  # of a tokenizer that was trained
    items: int = 0  # documents, and parts of long ones
    size: int = 0  # bytes of their text
    checksum: int = 0
    decoded: dict[str, int] = field(default_factory=dict)  # what `Lossy` counted
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)  # by `SplitWriter.safe`
    mark: Mark | None = None  # where the source can begin

    def add(self, texts: list[bytes]) -> None:
        """These are done, too."""
        self.items += len(texts)
        for text in texts:
            self.size += len(text)
            self.checksum = zlib.crc32(text, self.checksum)


@dataclass(frozen=True)
class Work:
    """The folder in which one prepared folder is made."""

    path: Path

    @property
    def folder(self) -> Path:
        return self.path / "folder"

    def begun(self) -> Progress | None:
        """What a killed run has left; nothing where that is of no use."""
        try:
            told = json.loads((self.path / PROGRESS).read_text(encoding="utf-8"))
            if told.pop("version") != VERSION:
                return None
            mark = told.pop("mark")
            return Progress(**told, mark=None if mark is None else Mark(*mark))
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            return None

    def empty(self) -> None:
        """Make the folder anew."""
        remove(self.path)
        self.folder.mkdir(parents=True)

    def save(self, progress: Progress) -> None:
        """Note that this much is on the disk."""
        with replacing(self.path / PROGRESS) as file:
            told = {"version": VERSION, **asdict(progress)}
            file.write_text(json.dumps(told), encoding="utf-8")


def work_beside(target: Path) -> Work:
    """Where `target` is made by the process that holds `lock_beside(target)`."""
    return Work(target.with_name(f".{target.name}.work"))


def lock_beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.lock")


def sweep_abandoned(cache_dir: Path) -> None:
    """Remove what killed runs left of folders that are finished, that cannot be gone on with, or
    that nobody went on with for a week; never what a process works on."""
    for left in [*cache_dir.glob(".*.work"), *cache_dir.glob(".*.lock")]:
        target = left.with_name(left.name[1:].rpartition(".")[0])
        if not KEY.fullmatch(target.name):
            continue
        with locked_if_free(lock_beside(target)) as free:
            work = work_beside(target)
            if free and (target.exists() or _is_abandoned(work)):
                remove(work.path)


def _is_abandoned(work: Work) -> bool:
    if work.begun() is None:
        return True
    with suppress(OSError):
        age = time.time() - (work.path / PROGRESS).stat().st_mtime
        return age > ABANDONED_AFTER
    return False


def skip(
    documents: Iterator[Document], progress: Progress, advance: Callable[[float], None]
) -> None:
    """Take the documents that are done off.

    Args:
        documents: from the mark, or the start, on.
        progress: how many are done.
        advance: is told the bytes of each.

    Raises:
        CannotGoOn: they are not the same any more.
    """
    checksum = 0
    for _ in range(progress.mark.items if progress.mark else 0, progress.items):
        document = next(documents, None)
        if document is None:
            raise CannotGoOn("the text is another one now")
        text = document.text.encode()
        checksum = zlib.crc32(text, checksum)
        advance(len(text))
    if progress.mark is None and checksum != progress.checksum:
        raise CannotGoOn("the text is another one now")
