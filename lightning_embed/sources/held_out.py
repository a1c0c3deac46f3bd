"""What of a user's files is for validation.

    auto   below 20 files as `end`, from 20 on as `name`; also as `end` where no name falls there
    name   a hash of the file's name decides, so that adding files moves none to the other side
    end    the end of the text, in bytes, files in order; the document on the line is cut there

Files that are given for validation (`--data.validation`) need no rule.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightning_embed.errors import UserError, require_range
from lightning_embed.sources.finding import STANDARD_INPUT, utf8_name
from lightning_embed.sources.source import Document
from lightning_embed.sources.usable import Usable

SplitKind = Literal["auto", "name", "end"]

FEWEST_FILES_TO_SPLIT_BY_NAME = 20
SHARE = 0.1  # of the text or of the names


@dataclass(frozen=True)
class SplitRule:
    """How a text is split where no files are given for validation.

    Args:
        kind: see above.
        share: of the bytes at the end, or the rate of names.
    """

    kind: SplitKind = "auto"
    share: float = SHARE

    def __post_init__(self) -> None:
        require_range("--data.validation_share", self.share, above=0, below=1)

    @property
    def percent(self) -> str:
        return f"{100 * self.share:g} %"

    def by_name(self, names: dict[str, str], n_files: int) -> set[str]:
        """Which files are for validation; none where the end of the text is.

        Args:
            names: of the files with text in them, each with the name that is hashed.
            n_files: how many there are with empty ones.

        Raises:
            UserError: all of them are, or none is, and only names may decide.
        """
        few = self.kind == "auto" and n_files < FEWEST_FILES_TO_SPLIT_BY_NAME
        if self.kind == "end" or few:
            return set()
        found = {file for file, name in names.items() if is_held_out(name, self.share)}
        if self.kind == "name" and not 0 < len(found) < len(names):
            raise UserError(
                f"--data.split name holds out {len(found)} of {len(names)} files at"
                f" --data.validation_share {self.share:g}: give another share, --data.split end or"
                " --data.validation FILES"
            )
        return found if len(found) < len(names) else set()

    def __str__(self) -> str:
        return f"split {self.kind} {self.share}"


AS_EVER = SplitRule()


def is_held_out(name: str, share: float = SHARE) -> bool:
    """Whether the file of this name is for validation; of a larger share it still is.

    At a tenth it is where the md5 of the name, modulo 10, is 0.
    """
    number = int(hashlib.md5(name.encode(), usedforsecurity=False).hexdigest(), 16)
    rest, digit = divmod(number, 10)
    return (digit + rest / 2**128 * 10) < 10 * share


def stable_names(patterns: Iterable[str], paths: Iterable[Path]) -> list[str]:
    """A name for each path that stays when more files are there or named: below the first folder
    that is named and has it, or below the part of a glob without wildcards; of a file that is named
    itself its last part."""
    roots, named = list[str](), set[str]()
    for pattern in patterns:
        if pattern == STANDARD_INPUT:
            continue
        place = os.path.abspath(os.path.expanduser(pattern))
        if os.path.isfile(place):
            named.add(place)
            continue
        while not os.path.isdir(place) and glob.has_magic(place):
            place = os.path.dirname(place)
        roots.append(place)
    found = []
    for path in map(os.path.abspath, paths):
        root = next((root for root in roots if Path(path).is_relative_to(root)), None)
        short = os.path.basename(path) if root is None or path in named else ""
        found.append(utf8_name(short or Path(path).relative_to(str(root)).as_posix()))
    return found


def last_share(texts: Iterable[Usable], total: int, share: float = SHARE) -> Iterator[Document]:
    """Hold out the last `share` of `total` bytes; the document on the line is cut in two."""
    before = 0
    for text in texts:
        # rounded, so that a single document is cut at exactly int(characters * 0.9)
        part = round(((1 - share) * total - before) / text.n_bytes, 12)
        before += text.n_bytes
        yield from cut(text, int(text.n_characters * min(max(part, 0.0), 1.0)))


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
