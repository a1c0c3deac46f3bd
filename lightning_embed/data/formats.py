"""Reading the formats of a user's files, one text after the other.

Text is kept exactly as it stands: line ends are not translated, only a UTF-8 byte order mark goes.
What is wrong is told in one line with the file and the line, row or byte.

The packaged builders of the `datasets` library (5.2, streaming) were tried for each format and do
not keep these promises:

    text     "\\r\\n" becomes "\\n", a byte order mark stays; wrong bytes are told without the file
    json     "2020-01-01" becomes a date; errors have a row within a block of the file, no line;
             a missing column is null
    csv      "NA" and "" become null, "007" becomes 7.0; a row with too few fields is filled up
    parquet  a file without rows and names with brackets are refused; errors are logged and raised;
             100 MB take 1.7 s (0.1 s here) after 2 s of import
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lightning_embed.errors import UserError, one_line

BOM = "\ufeff"
LONGEST_CSV_FIELD = 2**31 - 1  # characters; the csv module's own limit is 131,072

Row = tuple[str, Any]  # where it stands, for messages, and what is in the column of texts
Reader = Callable[[Path, str], Iterator[Row]]  # of a file's path and the column's name


def whole_text(path: Path, column: str) -> Iterator[Row]:
    """A text file is one text."""
    try:
        yield str(path), path.read_bytes().decode("utf-8").removeprefix(BOM)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 at byte {error.start:,} ({error.reason}): convert it, or"
            " leave it out"
        ) from None


def jsonl_rows(path: Path, column: str) -> Iterator[Row]:
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
                    f"{where} does not parse as JSON ({error}): correct it, or leave the file out"
                ) from None
            if not isinstance(row, dict):
                raise UserError(f"{where} is not a JSON object with a {column!r} in it")
            require_column(column, list(row), where)
            yield where, row[column]


def csv_rows(path: Path, column: str) -> Iterator[Row]:
    limit = csv.field_size_limit(LONGEST_CSV_FIELD)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = next(rows, None)
            if header is None:  # an empty file has no document, and that is not its column's fault
                return
            require_column(column, header, str(path))
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


def parquet_rows(path: Path, column: str) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            require_column(column, file.schema_arrow.names, str(path))
            number = 0
            for batch in file.iter_batches(batch_size=1_000, columns=[column]):
                for text in batch.column(0).to_pylist():
                    number += 1
                    yield f"{path}: row {number}", text
    except pyarrow.ArrowException as error:
        reason = one_line(error)
        raise UserError(f"{path} does not read as parquet ({reason})") from None


def columns_of(path: Path) -> dict[str, str]:
    """Names and kinds of the columns of a file that parses."""
    if path.suffix.lower() == ".parquet":
        from pyarrow import parquet

        schema = parquet.read_schema(path)
        return {field.name: str(field.type) for field in schema}
    if path.suffix.lower() == ".csv":
        with open(path, encoding="utf-8-sig", newline="") as file:
            return dict.fromkeys(next(csv.reader(file), []), "there")
    kinds: dict[str, str] = {}
    with open(path, encoding="utf-8-sig", newline="\n") as lines:
        for row in (json.loads(line) for line in lines if line.strip()):
            for name, value in row.items():
                if value is not None:
                    kinds[name] = type(value).__name__
    return kinds


def require_column(column: str, present: list[str], where: str) -> None:
    if column not in present:
        raise UserError(
            f"{where} has no column {column!r}: name one of {', '.join(map(repr, present))} with "
            "--data.text_column"
        )
    if present.count(column) > 1:
        raise UserError(
            f"{where} has {present.count(column)} columns {column!r}: rename all but one"
        )
