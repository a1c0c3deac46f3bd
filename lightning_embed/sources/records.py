"""Formats of records: each row of jsonl, json, csv, tsv, parquet and arrow is a document.

What is wrong is told in one line with the file and the line or row.

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
import re
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import IO, Any

from lightning_embed.errors import UserError, one_line
from lightning_embed.sources.columns import no_column, require_column, value_of
from lightning_embed.sources.opening import seekable, text_of

LONGEST_RECORD = 1 << 28  # characters, as a record is read in one piece
BLOCK = 1 << 20
JSON_SPACE = re.compile(r"[ \t\r\n]*")
ROWS_AT_ONCE = 1_000

Row = tuple[str, Any]  # where it stands, for messages, and what is in the column of texts
Reader = Callable[[IO[bytes], str, str], Iterator[Row]]  # of a stream, its name and the column's


def jsonl_rows(stream: IO[bytes], name: str, column: str) -> Iterator[Row]:
    for number, line in enumerate(_lines(stream, name, "\n"), 1):
        where = f"{name}:{number}"
        if not line.strip():
            yield where, ""
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _not_json(where, error) from None
        yield where, _column(row, column, where)


def json_rows(stream: IO[bytes], name: str, column: str) -> Iterator[Row]:
    """An array of objects, or objects one after the other, each on one line or on several."""
    file = _JsonText(stream, name)
    in_array = file.next() == "["
    if in_array:
        file.at += 1
    while token := file.next():
        if in_array and token == "]":
            file.at += 1
            if file.next():
                raise _not_json(file.where(), "something follows the end of the array")
            return
        if token != "{":
            raise UserError(f"{file.where()} is not a JSON object with a {column!r} in it")
        where = file.where()
        yield where, _column(file.value(), column, where)
        if in_array and file.next() == ",":
            file.at += 1
        elif in_array and file.next() not in ("]", ""):
            raise _not_json(file.where(), "no comma between two rows")
    if in_array:
        raise _not_json(file.where(), "the array has no end")


class _JsonText:
    """A JSON file of which a part is in memory.

    Attributes:
        at: where in that part reading stands; callers move it over a character they have used.
    """

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self.file, self.name = text_of(stream, name), name
        self.text, self.at, self.ended = "", 0, False
        self.line, self.counted = 1, 0  # line of the character `counted`
        self.decode = json.JSONDecoder().raw_decode

    def where(self) -> str:
        self.line += self.text.count("\n", self.counted, self.at)
        self.counted = self.at
        return f"{self.name}:{self.line}"

    def next(self) -> str:
        """The next character that is no white space, "" at the end."""
        while True:
            self.at = JSON_SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self._more()

    def value(self) -> Any:
        """The value that begins here."""
        while True:
            try:
                value, self.at = self.decode(self.text, self.at)
                return value
            except (ValueError, RecursionError) as error:
                if self.ended or len(self.text) - self.at > LONGEST_RECORD:
                    raise _not_json(self.where(), error) from None
            self._more()

    def _more(self) -> None:
        self.where()
        block = self.file.read(max(BLOCK, len(self.text) - self.at))  # twice as much each time
        self.text, self.ended = self.text[self.at :] + block, not block
        self.at = self.counted = 0


def csv_rows(stream: IO[bytes], name: str, column: str, delimiter: str = ",") -> Iterator[Row]:
    kind = "CSV" if delimiter == "," else "TSV"
    limit = csv.field_size_limit(LONGEST_RECORD)
    rows = csv.reader(_lines(stream, name, ""), strict=True, delimiter=delimiter)
    try:
        header = next(rows, None)
        if header is None:  # an empty file has no document, and that is not its column's fault
            return
        if require_column(column, header, name) != column:
            raise no_column(column, header, name)
        place = header.index(column)
        for row in rows:
            where = f"{name}:{rows.line_num}"
            if row and len(row) <= place:
                raise UserError(f"{where} has {len(row)} fields, {column!r} is number {place + 1}")
            yield where, row[place] if row else ""
    except csv.Error as error:
        raise UserError(f"{name}:{rows.line_num} does not parse as {kind} ({error})") from None
    finally:
        csv.field_size_limit(limit)


def tsv_rows(stream: IO[bytes], name: str, column: str) -> Iterator[Row]:
    """As csv, quotes included, but for the tabs."""
    return csv_rows(stream, name, column, delimiter="\t")


def parquet_rows(stream: IO[bytes], name: str, column: str) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(seekable(stream)) as file:
            own = require_column(column, file.schema_arrow.names, name)
            batches = file.iter_batches(batch_size=ROWS_AT_ONCE, columns=[own])
            yield from _arrow_rows(batches, own, column, name)
    except pyarrow.ArrowException as error:
        raise UserError(f"{name} does not read as parquet ({one_line(error)})") from None


def arrow_rows(stream: IO[bytes], name: str, column: str) -> Iterator[Row]:
    """Arrow's file format, which is Feather's, or its stream format, which `datasets` writes."""
    import pyarrow
    from pyarrow import ipc

    try:
        stream = seekable(stream)
        is_file = stream.read(6) == b"ARROW1"
        stream.seek(0)
        if is_file:
            file = ipc.open_file(stream)
            schema, batches = file.schema, map(file.get_batch, range(file.num_record_batches))
        else:
            file = ipc.open_stream(stream)
            schema, batches = file.schema, iter(file)
        own = require_column(column, schema.names, name)
        yield from _arrow_rows(batches, own, column, name)
    except pyarrow.ArrowException as error:
        raise UserError(f"{name} does not read as arrow ({one_line(error)})") from None


READERS: dict[str, Reader] = {
    "jsonl": jsonl_rows,
    "json": json_rows,
    "csv": csv_rows,
    "tsv": tsv_rows,
    "parquet": parquet_rows,
    "arrow": arrow_rows,
}


def columns_of(path: Path) -> dict[str, str]:
    """Names and kinds of the columns of a jsonl, csv or parquet file that parses."""
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


def _lines(stream: IO[bytes], name: str, newline: str) -> Iterator[str]:
    file = text_of(stream, name, newline)
    for number in count(1):
        line = file.readline(LONGEST_RECORD + 1)
        if not line:
            return
        if len(line) > LONGEST_RECORD:
            raise UserError(
                f"{name}:{number} is a line of more than {LONGEST_RECORD:,} characters: a record"
                " may not be that long"
            )
        yield line


def _column(row: Any, column: str, where: str) -> Any:
    if not isinstance(row, dict):
        raise UserError(f"{where} is not a JSON object with a {column!r} in it")
    return value_of(row, column, where)


def _arrow_rows(batches: Iterator[Any], own: str, column: str, name: str) -> Iterator[Row]:
    number = 0
    for batch in batches:
        for at in range(0, batch.num_rows, ROWS_AT_ONCE):
            for value in _values(batch.column(own).slice(at, ROWS_AT_ONCE), number, name):
                number += 1
                where = f"{name}: row {number}"
                yield where, value if own == column else value_of({own: value}, column, where)


def _values(column: Any, before: int, name: str) -> list[Any]:
    """What is in these rows, with so many before them."""
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:  # which says nothing of the row
        for number, value in enumerate(column, before + 1):
            try:
                value.as_py()
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{name}: row {number} is not UTF-8 at its byte {error.start:,}: correct it, or"
                    " leave the file out"
                ) from None
        raise
    return values


def _not_json(where: str, error: object) -> UserError:
    return UserError(
        f"{where} does not parse as JSON ({one_line(error)}): correct it, or leave the file out"
    )
