"""What of a file is usable: its documents with text in them, each with a digest by which copies are
known.

A document that is too long to be held in memory is read from its file again when it is needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lightning_embed.errors import UserError
from lightning_embed.sources.formats import Format, Text

HELD_DOCUMENT = 16_000_000  # characters of a document that are kept in memory


class File(NamedTuple):
    """A file that is read.

    Attributes:
        name: relative to the folder that all files share.
        path: where it is.
        format: None of an archive.
        held_out: given for validation.
    """

    name: str
    path: Path
    format: Format | None
    held_out: bool = False


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


def documents_of(
    file: File, texts: Callable[[], Iterator[Text]], again: Callable[[], Iterator[Text]]
) -> Iterator[tuple[Usable | None, bytes]]:
    """Documents of a file, None where there is no text, and their digests.

    Args:
        file: which.
        texts: what is in it.
        again: the same, for a document that is read a second time.
    """
    number = -1
    for piece, name in texts():
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
        read_again = ReadAgain(again, number, digest.digest(), file)
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
