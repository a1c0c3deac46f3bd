"""A user's own files: finding them, and reading documents out of them one at a time.

Knows: globs, text files (one document a file), jsonl, csv and parquet (one document a row), and how
to say in one line which file, line or byte is wrong. Leaves to others: copies, empty documents, the
split and the storage (`corpus.py`).

Text is kept exactly as it stands: line ends are not translated, only a UTF-8 byte order mark goes.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lightning_embed.errors import UserError

BOM = "\ufeff"
LONGEST_CSV_FIELD = 2**31 - 1  # characters; the csv module's own limit is 131,072


def find_files(patterns: Iterable[str]) -> list[Path]:
    """The files that paths and globs name: patterns in the order given, matches of each sorted.

    `**` reaches into folders (not hidden ones), `~` is the home folder. A folder is refused: which
    of its files are text is for the user to say. Raises FileNotFoundError or UserError.
    """
    found: dict[Path, None] = {}  # a set that keeps its order: a file named twice counts once
    for pattern in patterns:
        expanded = os.path.expanduser(pattern)
        if os.path.isdir(expanded):
            raise UserError(
                f"--data.files {pattern!r} is a folder: name files in it, for example "
                f"'{Path(pattern) / '**' / '*.txt'}'"
            )
        if os.path.isfile(expanded):  # first, as `notes[1].txt` may be a name
            matches = [expanded]
        else:
            matches = sorted(filter(os.path.isfile, glob.glob(expanded, recursive=True)))
        if not matches:
            raise FileNotFoundError(f"--data.files {pattern!r}: no such file, and no file matches")
        found.update(dict.fromkeys(Path(match).absolute() for match in matches))
    if not found:
        raise UserError("--data.files is empty: name at least one file or glob")
    return list(found)


def relative_names(paths: list[Path]) -> list[str]:
    """Each path relative to the folder that all share, in posix form."""
    shared = os.path.commonpath([path.parent for path in paths])
    return [path.relative_to(shared).as_posix() for path in paths]


def digests(paths: list[Path]) -> list[tuple[str, str]]:
    """Relative name and digest of each file, read in pieces."""
    digests = []
    for name, path in zip(relative_names(paths) if paths else [], paths, strict=True):
        with open(path, "rb") as file:
            digests.append((name, hashlib.file_digest(file, "sha256").hexdigest()))
    return digests


def read_documents(path: Path, text_column: str) -> Iterator[str]:
    """The documents of one file, in order; a blank line of jsonl or csv gives an empty one.

    Raises UserError, one line with the file and the line, row or byte, for what is not UTF-8, does
    not parse, lacks the column, or holds something else than text there.
    """
    readers = {".jsonl": _jsonl, ".ndjson": _jsonl, ".csv": _csv, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        yield _whole_text(path)
        return
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
        _whole_text(path)  # raises, with the byte's position in the file
        raise


def _whole_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8").removeprefix(BOM)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 at byte {error.start:,} ({error.reason}): convert it, or leave "
            "it out of --data.files"
        ) from None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _jsonl(path: Path, column: str) -> Iterator[tuple[str, Any]]:
    with open(path, encoding="utf-8-sig", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{path}:{number}"
            if not line.strip():
                yield where, ""
                continue
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise UserError(
                    f"{where} does not parse as JSON ({error}): correct it, or leave the file out "
                    "of --data.files"
                ) from None
            if not isinstance(row, dict):
                raise UserError(f"{where} is not a JSON object with a {column!r} in it")
            _require_column(column, list(row), where)
            yield where, row[column]


def _csv(path: Path, column: str) -> Iterator[tuple[str, Any]]:
    limit = csv.field_size_limit(LONGEST_CSV_FIELD)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = next(rows, None)
            if header is None:  # an empty file has no document, and that is not its column's fault
                return
            _require_column(column, header, str(path))
            place = header.index(column)
            for row in rows:
                where = f"{path}:{rows.line_num}"
                if row and len(row) <= place:
                    raise UserError(
                        f"{where} has {len(row)} fields, {column!r} is number {place + 1}"
                    )
                yield where, row[place] if row else ""
    except csv.Error as error:
        raise UserError(f"{path}:{rows.line_num} does not parse as CSV ({error})") from None
    finally:
        csv.field_size_limit(limit)


def _parquet(path: Path, column: str) -> Iterator[tuple[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            _require_column(column, file.schema_arrow.names, str(path))
            number = 0
            for batch in file.iter_batches(batch_size=1_000, columns=[column]):
                for text in batch.column(0).to_pylist():
                    number += 1
                    yield f"{path}: row {number}", text
    except pyarrow.ArrowException as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} does not read as parquet ({reason})") from None


def _require_column(column: str, present: list[str], where: str) -> None:
    if column not in present:
        raise UserError(
            f"{where} has no column {column!r}: name one of {', '.join(map(repr, present))} with "
            "--data.text_column"
        )
