"""What every source of text is: something with a fingerprint that yields documents.

A source of your own is given as `TextDataModule(source=...)`, or on the command line by its class,
`--data.source my_module.Poems --data.source.folder poems`, with the annotations as they are here:

    class Poems:
        def __init__(self, folder: str) -> None:
            self.folder = folder

        @cached_property
        def fingerprint(self) -> str:  # tokens prepared before are found again by it
            return fingerprint_of("poems", [poem_digest(path) for path in poems_in(self.folder)])

        def documents(self, about: About) -> Iterator[Document]:
            about.title = "poems"
            for number, text in enumerate(all_poems(self.folder)):
                yield Document(text, f"poem {number}", held_out=number % 10 == 0)
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

RECIPE = 1  # raise it when the same input would give other documents or another split
SET_ASIDE = (
    "exact copies",
    "empty documents",
    "held-out documents left out",
    "files that do not parse",
)

Item = TypeVar("Item")


class Document(NamedTuple):
    """A text, the name of the file (or the like) it came from, and its split.

    A long one may come in pieces, one right after the other, of which the first begins it and the
    last ends it.
    """

    text: str
    source: str
    held_out: bool = False  # for validation, not for training
    begins: bool = True
    ends: bool = True


class Mark(NamedTuple):
    """A place in a source to begin at, when what comes before it is tokens already."""

    items: int  # documents, and parts of long ones, before it
    counts: dict[str, int]  # of them
    state: dict[str, Any]  # what the source needs to begin there, as JSON values


@dataclass
class About:
    """What a person should know of a corpus: complete when its documents have been read.

    `counts` has plain words as keys: what a source sets aside ("exact copies"), and what `read`
    counts, "documents" and "bytes" (UTF-8), in all and for each split ("train bytes").
    `notes` are finished lines for the screen. `whole` says that all is held out on purpose,
    `complete` that the last document has been read.

    A source that can begin later says where, between two documents, with `mark`; where `begin` is
    set, it begins there. Others are read from the start when a killed run goes on.
    """

    title: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    whole: bool = False
    complete: bool = False
    begin: Mark | None = None
    items: int = 0  # documents, and parts of long ones, that `read` has handed over
    marks: list[Mark] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.begin is not None:
            self.items = self.begin.items
            self.counts.update(self.begin.counts)

    def mark(self, state: dict[str, Any]) -> None:
        """The source could begin here."""
        self.marks.append(Mark(self.items, dict(self.counts), state))

    def last_mark(self, items: int) -> Mark | None:
        """The last place before which there are no more than so many; forgets earlier ones."""
        passed = [mark for mark in self.marks if mark.items <= items]
        self.marks = [*passed[-1:], *self.marks[len(passed) :]]
        return passed[-1] if passed else self.begin

    def note_set_aside(self) -> None:
        """One line on what was left out, if anything was."""
        found = [f"{self.counts[what]:,} {what}" for what in SET_ASIDE if self.counts[what]]
        if found:
            self.notes.append(f"set aside: {'; '.join(found)}")


class Source(Protocol):
    """Where documents come from.

    A source may have more: `name_of_text`, a text that stays the same when what is in it changes,
    so that a run goes on with its tokens when the text has grown since; and `n_bytes`, of the text,
    from which the room for its tokens is estimated.
    """

    @property
    def fingerprint(self) -> str:
        """A short text that changes with names, contents and options; may read all of the text, so
        it should be a `functools.cached_property`."""

    def documents(self, about: About) -> Iterator[Document]:
        """Every document of both splits in order, `about` being filled in on the way.

        The same documents every time: a text too large to be held in memory is read again.
        """


def utf8_size(text: str) -> int:
    """Bytes of the text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def counted(documents: Iterable[Document], advance: Callable[[float], None]) -> Iterator[Document]:
    """The documents; `advance` is told the bytes of each as it is handed over."""
    for document in documents:
        advance(utf8_size(document.text))
        yield document


def drained(items: deque[Item]) -> Iterator[Item]:
    """The items in order; each is let go of as it is handed over."""
    while items:
        yield items.popleft()


def is_held_out(path: str) -> bool:
    """Whether the file at this posix path, relative to its corpus, is for validation: 1 in 10."""
    return int(hashlib.md5(path.encode(), usedforsecurity=False).hexdigest(), 16) % 10 == 0


def fingerprint_of(*parts: object) -> str:
    """16 hexadecimal digits of names, digests of contents, and options (JSON values)."""
    return hashlib.sha256(json.dumps([RECIPE, *parts]).encode()).hexdigest()[:16]
