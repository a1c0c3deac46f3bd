"""What a document is in text: the file, a line, a paragraph, or what is between separators.

Text is kept exactly as it stands: line ends are not translated, only a UTF-8 byte order mark goes,
and what separates documents within a file. A long document comes in pieces, so that a line of a
gigabyte need not fit into memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Literal, NamedTuple

from lightning_embed.errors import UserError
from lightning_embed.sources.opening import text_of

BLOCK = 1 << 20  # characters read at once, and about as many in a piece

Kind = Literal["file", "line", "paragraph", "separator"]


class Piece(NamedTuple):
    """A part of a document, or all of it."""

    text: str
    begins: bool = True
    ends: bool = True


@dataclass(frozen=True)
class DocumentRule:
    """What a document is in text.

    Args:
        kind: "file"; "line", without its end; "paragraph", lines up to a blank one; "separator",
            what stands between two of them.
        separator: the text that separates.
    """

    kind: Kind = "file"
    separator: str | None = None

    def __post_init__(self) -> None:
        if self.kind == "separator" and not self.separator:
            raise UserError("--data.document separator needs a --data.separator TEXT")
        if self.kind != "separator" and self.separator is not None:
            raise UserError(
                f"--data.separator {self.separator!r} needs --data.document separator, not"
                f" {self.kind}"
            )

    def __str__(self) -> str:
        return self.kind if self.separator is None else f"{self.kind} {self.separator!r}"

    def documents(self, stream: IO[bytes], name: str) -> Iterator[Piece]:
        """The documents of a stream of UTF-8, in pieces; `name` is for messages."""
        file = text_of(stream, name)
        blocks = iter(lambda: file.read(BLOCK), "")
        if self.kind == "file":
            return _whole(blocks)
        if self.kind == "separator":
            assert self.separator
            return _between(blocks, self.separator)
        lines = _between(blocks, "\n")
        return _without_cr(lines) if self.kind == "line" else _paragraphs(lines)


def _whole(blocks: Iterable[str]) -> Iterator[Piece]:
    before, begins = "", True
    for block in blocks:
        if before:
            yield Piece(before, begins, False)
            begins = False
        before = block
    yield Piece(before, begins, True)


def _between(blocks: Iterable[str], separator: str) -> Iterator[Piece]:
    """What is between separators; nothing after one at the end of the file."""
    rest, begins = "", True
    for block in blocks:
        *whole, rest = (rest + block).split(separator)
        for text in whole:
            yield Piece(text, begins, True)
            begins = True
        if len(rest) > BLOCK:
            kept = len(rest) - len(separator)  # where a separator may have begun
            yield Piece(rest[:kept], begins, False)
            rest, begins = rest[kept:], False
    if rest or not begins:
        yield Piece(rest, begins, True)


def _without_cr(lines: Iterable[Piece]) -> Iterator[Piece]:
    for line in lines:
        yield line._replace(text=line.text.removesuffix("\r")) if line.ends else line


def _paragraphs(lines: Iterable[Piece]) -> Iterator[Piece]:
    """Lines joined by "\\n" up to a blank one."""
    held, size, begins = list[str](), 0, True
    for line in lines:
        if line.begins and line.ends and not line.text.strip():
            if held:
                yield Piece("".join(held).removesuffix("\r"), begins, True)
            held, size, begins = [], 0, True
            continue
        if line.begins and held:
            held.append("\n")
        held.append(line.text)
        size += len(line.text)
        if size > BLOCK and len(held) > 1:
            yield Piece("".join(held[:-1]), begins, False)
            held, size, begins = held[-1:], len(held[-1]), False
    if held:
        yield Piece("".join(held).removesuffix("\r"), begins, True)
