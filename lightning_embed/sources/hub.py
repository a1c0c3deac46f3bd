"""A data set on the Hub, or a local folder of one, as a source, read with the `datasets` library.

Whether the Hub answers at all is asked in `hub_probe.py`. A split is read as the library's table
(`hub_table.py`), or file by file where it does not fit on the disk (`hub_files.py`).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from lightning_embed.console import say
from lightning_embed.errors import UserError, one_line
from lightning_embed.sources.columns import as_text
from lightning_embed.sources.files import WHOLE_FILES
from lightning_embed.sources.finding import digests
from lightning_embed.sources.formats import texts_of
from lightning_embed.sources.hub_files import CannotStream, SplitFiles, files_of, is_too_large
from lightning_embed.sources.hub_probe import require_hub
from lightning_embed.sources.hub_table import Table
from lightning_embed.sources.hub_trouble import told
from lightning_embed.sources.records import columns_of
from lightning_embed.sources.source import About, Document, fingerprint_of

if TYPE_CHECKING:  # a second of start-up that other sources do not need
    from datasets import Dataset

HELD_OUT_SHARE = 0.01
HELD_OUT_MOST = 10_000  # documents
COMPARED = (".jsonl", ".ndjson", ".csv", ".parquet")  # formats whose columns are told
GROUPS = 100  # made-up sources, so that a bootstrap over sources has groups to draw
RECIPE = 2  # raise it when the same data set would give other documents or another split


@dataclass(frozen=True)
class HubCorpus:
    """A data set on the Hub by name and config, or a local folder of one.

    Without a validation split 1 % of train's rows (1 to 10,000, evenly spaced) are held out. The
    Hub's client keeps the data in its own cache; copies are not looked for. The fingerprint is of
    names and options only, as the contents cannot be had cheaply (of a local folder they can).

    Args:
        name: on the Hub, or a folder.
        config: of the data set.
        text_column: where rows keep the text: a column, or a dotted path to a nested one.
        train_split: name of the split to train on.
        validation_split: name of the one held out; None never looks for it.
        revision: branch, tag or commit on the Hub; None is the newest.
        streaming: fetch, read and drop one file after the other; None where the disk is too small
            for all of them. The documents are the same.
    """

    name: str
    config: str | None = None
    text_column: str = "text"
    train_split: str = "train"
    validation_split: str | None = "validation"
    revision: str | None = None
    streaming: bool | None = None

    @cached_property
    def fingerprint(self) -> str:
        options = (self.name, self.config, self.text_column, self.train_split)
        files = digests(self._local_files())
        return fingerprint_of("hub", RECIPE, files, *options, self.validation_split, *self._newer)

    @property
    def name_of_text(self) -> str:
        splits = self.train_split, self.validation_split
        options = (self.config, self.text_column, *splits, *self._newer)
        return f"--data.hub {self.name} {options}"

    @property
    def _newer(self) -> tuple[str, ...]:
        """Options that version 0.2 did not have, where they are given."""
        return () if self.revision is None else (self.revision,)

    @property
    def n_bytes(self) -> int:
        """Of a local folder; how much a data set on the Hub has is not known before it is here."""
        return sum(path.stat().st_size for path in self._local_files())

    def _local_files(self) -> list[Path]:
        return sorted(path for path in Path(self.name).rglob("*") if path.is_file())

    def documents(self, about: About) -> Iterator[Document]:
        about.title = f"{self.name}{f' ({self.config})' if self.config else ''}"
        splits = self._split_files(about) or self._splits()
        if self.train_split not in splits:
            raise UserError(
                f"{self.name} has no split {self.train_split!r}: it has {', '.join(splits)}"
            )
        train, rows = self._rows_of(splits[self.train_split]), None
        if self.validation_split is not None and self.validation_split in splits:
            validation = self._rows_of(splits[self.validation_split])
            parts: list[Part] = [(train, frozenset()), (validation, range(sys.maxsize))]
        else:
            rows = about.begin.state["rows"] if about.begin else train.rows
            held_out = evenly_spaced(rows)
            parts = [(train, held_out)]
        for number, part in enumerate(parts):
            yield from self._usable(number, part, rows, about)
        if rows is not None:
            share = len(held_out) / max(1, rows)
            about.notes.append(
                f"held out: {share:.2%} of split {self.train_split!r}, evenly spaced"
            )
        about.note_set_aside()

    def _split_files(self, about: About) -> dict[str, SplitFiles] | None:
        """Where the data set is to come file by file, its files."""
        if self.streaming is False:
            return None
        remote = not Path(self.name).is_dir()
        if not self.streaming and not remote:
            return None
        if remote:
            require_hub(self.name, "--data.files")
        revision = about.begin.state["revision"] if about.begin else self.revision
        where = (self.name, self.config, revision, self.text_column)
        with _quiet() as heard, told(self.name):
            if not self.streaming and about.begin is None:
                why = is_too_large(*where)
                if not why:
                    return None
                say("note", f"{self.name} comes file by file: {why} (--data.hub_streaming)")
            try:
                return files_of(*where)
            except CannotStream as why_not:
                raise UserError(
                    f"--data.hub_streaming: {self.name} cannot come file by file: {why_not}"
                ) from None
            except library_errors() as error:
                raise self._not_had(error, heard) from error

    def _splits(self) -> dict[str, Dataset]:
        import datasets

        if not Path(self.name).is_dir():
            require_hub(self.name, "--data.files")
        with _quiet() as heard, told(self.name):
            try:
                which = {} if self.revision is None else {"revision": self.revision}
                splits: dict[str, Dataset] = datasets.load_dataset(self.name, self.config, **which)
            except library_errors() as error:
                raise self._not_had(error, heard) from error
        return splits

    def _not_had(self, error: Exception, heard: list[str]) -> UserError:
        import datasets

        if heard or isinstance(error, datasets.exceptions.DatasetGenerationError):
            return self._unreadable(error, heard)
        return UserError(
            f"data set {self.name!r} (config {self.config!r}) cannot be had: {one_line(error)};"
            " correct --data.hub or --data.hub_config, or give local files with --data.files"
        )

    def _unreadable(self, error: Exception, heard: list[str]) -> UserError:
        """What is wrong with a file of the data set; the library's error tells neither file nor
        line, its log (`heard`) sometimes does."""
        try:
            why = unequal_columns(self._local_files(), self.text_column)
        except UserError as found:
            why = str(found)
        if not why:
            why = heard[0] if heard else " ".join(str(error.__cause__ or error).split())
        return UserError(f"--data.hub {self.name} does not read: {why}")

    def _rows_of(self, split: Dataset | SplitFiles) -> Table | SplitFiles:
        if isinstance(split, SplitFiles):
            return split
        return Table.of(split, self.text_column, self.name)

    def _usable(
        self, number: int, part: Part, rows: int | None, about: About
    ) -> Iterator[Document]:
        """The rows with text in them; those whose numbers are in the part's second are for
        validation. Files that are tokens already are not fetched."""
        split, held_out = part
        row, used, file = 0, 0, 0
        if about.begin is not None:
            done = about.begin.state
            if number < done["split"]:
                return
            if number == done["split"]:
                row, used, file = done["row"], done["used"], done["file"]
        for found in split.values(file):
            if found.file != file:
                file = found.file
                state = {"split": number, "file": file, "row": row, "used": used}
                about.mark({**state, "rows": rows, "revision": split.revision})
            text = (
                "" if found.value is None else as_text(found.value, self.text_column, found.where)
            )
            if not text or text.isspace():
                about.counts["empty documents"] += 1
            else:
                yield Document(text, f"{self.name}#{used % GROUPS}", row in held_out)
                used += 1
            row += 1
        if rows not in (None, row):
            raise UserError(
                f"{self.name} has {row:,} rows and its card says {rows:,}, by which some are held"
                " out: say --data.hub_streaming false"
            )


Part: TypeAlias = tuple[Table | SplitFiles, Container[int]]  # a split, and rows to be held out


def library_errors() -> tuple[type[Exception], ...]:
    """What the library raises where a data set cannot be had."""
    import datasets

    return ValueError, OSError, RuntimeError, datasets.exceptions.DatasetsError


def unequal_columns(files: list[Path], text_column: str) -> str:
    """Which of these files has other columns than the first, in a sentence; nothing if none has.

    Raises UserError, with file and line, for a file that does not parse or lacks the text's column.
    """
    first: tuple[Path, dict[str, str]] | None = None
    for path in files:
        if path.suffix.lower() not in COMPARED:
            continue
        for _ in texts_of(path, str(path), text_column, WHOLE_FILES):
            pass
        columns = columns_of(path)
        first = first or (path, columns)
        for name in sorted(columns.items() ^ first[1].items()):
            here, there = (found.get(name[0], "absent") for found in (columns, first[1]))
            return (
                f"column {name[0]!r} is {here} in {path} and {there} in {first[0]}; make them"
                f" equal, or take the texts alone: --data.files '{path.parent / '*'}{path.suffix}'"
                f" --data.text_column {text_column}"
            )
    return ""


def evenly_spaced(rows: int) -> set[int]:
    """The numbers of 1 % of the rows, at even distances."""
    count = min(max(1, int(rows * HELD_OUT_SHARE)), HELD_OUT_MOST, rows)
    return {(number * rows) // count for number in range(count)}


@contextmanager
def _quiet() -> Iterator[list[str]]:
    """No progress bars of the `datasets` library, which would fill the log; what it has to say of
    a file that does not read is put into the list."""
    import datasets

    heard: list[str] = []
    ear = logging.Handler(logging.ERROR)
    ear.emit = lambda record: heard.append(" ".join(record.getMessage().split()))  # type: ignore[method-assign]
    logger = logging.getLogger("datasets")
    handlers, logger.handlers = logger.handlers, [ear]
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield heard
    finally:
        logger.handlers = handlers
        if shown:
            datasets.enable_progress_bars()
