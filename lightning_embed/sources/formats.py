"""Which format a file has by its suffix, and the documents of a file of any format.

A new format is a reader like those of `records.py` and a line in `READERS`, with its suffix here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from lightning_embed.errors import UserError
from lightning_embed.sources.columns import as_text
from lightning_embed.sources.opening import ARCHIVES, Opened, open_all, suffixes, telling
from lightning_embed.sources.records import READERS
from lightning_embed.sources.texts import DocumentRule, Piece

Format = Literal["text", "jsonl", "json", "csv", "tsv", "parquet", "arrow"]

TEXTS = """
    txt text md markdown mdx rst adoc org tex bib log srt vtt html htm xhtml xml svg css scss less
    yaml yml toml ini cfg conf properties diff patch po
    py pyi pyx ipynb c h cc cpp cxx hh hpp hxx cu cuh m mm java kt kts scala groovy gradle go rs zig
    nim d swift js mjs cjs jsx ts tsx vue svelte php rb pl pm lua r jl hs lhs ml mli fs fsx fsi elm
    clj cljs ex exs erl hrl lisp el scm rkt f f77 f90 f95 for pas pp ada adb ads asm s v sv vhd vhdl
    cs vb dart sol sh bash zsh fish ps1 bat cmd awk sed sql proto graphql cmake mk make dockerfile
    tf hcl nix lean coq agda tcl cob cbl abap bas
"""
SUFFIXES: dict[str, Format] = {
    "": "text",  # README, enwik8
    **{f".{suffix}": "text" for suffix in TEXTS.split()},
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
FORMATS = get_args(Format)


class Text(NamedTuple):
    """A piece of a document and what it is from: the file, or the archive's member."""

    piece: Piece
    name: str


def is_known(name: str) -> bool:
    """Whether the suffix tells that this is an archive or has a format."""
    suffix, _ = suffixes(name)
    return suffix in SUFFIXES or suffix in ARCHIVES


def format_of(name: str, asked: Format | None = None) -> Format | None:
    """The format of a file or member; None of an archive.

    Raises:
        UserError: nothing is known of the suffix and no format was asked for.
    """
    suffix, _ = suffixes(name)
    if suffix in ARCHIVES:
        return None
    if asked is None and suffix not in SUFFIXES:
        raise UserError(
            f"{name}: what {suffix} files hold is not known; if it is text, say --data.format text"
            f" (or {', '.join(FORMATS[1:])})"
        )
    return asked or SUFFIXES[suffix]


def texts_of(
    path: Path,
    name: str,
    column: str,
    rule: DocumentRule,
    asked: Format | None = None,
    left_out: list[str] | None = None,
) -> Iterator[Text]:
    """The documents of one file in order, in pieces; a blank line of jsonl or csv is an empty one.

    Args:
        path: of the file.
        name: for messages.
        column: where records have their text.
        rule: what a document is in text.
        asked: the format, for who knows better than the suffix.
        left_out: takes the names of an archive's members whose format is not known.

    Raises:
        UserError: one line with the file and the line, row or byte, for what is not UTF-8, does
            not parse, lacks the column, or holds something else than text there; with the file for
            what is truncated, damaged, encrypted or expands beyond all measure.
    """
    with telling(name):
        for content in open_all(path, name):
            in_archive = content.name != name
            if in_archive and (content.suffix in ARCHIVES or not (asked or is_known(content.name))):
                if left_out is not None:
                    left_out.append(content.name)
                continue
            for piece in _pieces(content, column, rule, format_of(content.name, asked)):
                yield Text(piece, content.name)


def _pieces(
    content: Opened, column: str, rule: DocumentRule, format: Format | None
) -> Iterable[Piece]:
    assert format is not None
    if format == "text":
        return rule.documents(content.stream, content.name)
    rows = READERS[format](content.stream, content.name, column)
    return (Piece(as_text(value, column, where)) for where, value in rows)
