"""A data set on the Hub, or a local folder of one, as a source, read with the `datasets` library.

Whether the Hub answers at all is asked in `hub_probe.py`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_embed.errors import UserError, one_line
from lightning_embed.sources.columns import as_text, require_column, value_of
from lightning_embed.sources.files import WHOLE_FILES
from lightning_embed.sources.finding import digests
from lightning_embed.sources.formats import texts_of
from lightning_embed.sources.hub_probe import require_hub
from lightning_embed.sources.hub_trouble import told
from lightning_embed.sources.records import columns_of
from lightning_embed.sources.source import About, Document, fingerprint_of

if TYPE_CHECKING:  # a second of start-up that other sources do not need
    from datasets import Dataset

HELD_OUT_SHARE = 0.01
HELD_OUT_MOST = 10_000  # documents
COMPARED = (".jsonl", ".ndjson", ".csv", ".parquet")  # formats whose columns are told
GROUPS = 100  # made-up sources, so that a bootstrap over sources has groups to draw
ROWS_AT_ONCE = 1_000
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
    """

    name: str
    config: str | None = None
    text_column: str = "text"
    train_split: str = "train"
    validation_split: str | None = "validation"
    revision: str | None = None

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
        splits = self._splits()
        if self.train_split not in splits:
            raise UserError(
                f"{self.name} has no split {self.train_split!r}: it has {', '.join(splits)}"
            )
        train, counts = self._column(splits[self.train_split]), about.counts
        if self.validation_split is not None and self.validation_split in splits:
            validation = self._column(splits[self.validation_split])
            yield from self._usable(train, set(), counts)
            yield from self._usable(validation, range(len(validation)), counts)
        else:
            held_out = evenly_spaced(len(train))
            yield from self._usable(train, held_out, counts)
            share = len(held_out) / max(1, len(train))
            about.notes.append(
                f"held out: {share:.2%} of split {self.train_split!r}, evenly spaced"
            )
        about.note_set_aside()

    def _splits(self) -> dict[str, Dataset]:
        import datasets

        if not Path(self.name).is_dir():
            require_hub(self.name, "--data.files")
        with _quiet() as heard, told(self.name):
            try:
                which = {} if self.revision is None else {"revision": self.revision}
                splits: dict[str, Dataset] = datasets.load_dataset(self.name, self.config, **which)
            except (ValueError, OSError, RuntimeError, datasets.exceptions.DatasetsError) as error:
                if heard or isinstance(error, datasets.exceptions.DatasetGenerationError):
                    raise self._unreadable(error, heard) from error
                reason = one_line(error)
                raise UserError(
                    f"data set {self.name!r} (config {self.config!r}) cannot be had: {reason};"
                    " correct --data.hub or --data.hub_config, or give local files with"
                    " --data.files"
                ) from error
        return splits

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

    def _column(self, rows: Dataset) -> Dataset:
        """The texts alone, as a data set with one column."""
        own = require_column(self.text_column, rows.column_names, self.name)
        kind = getattr(rows.features[own], "dtype", "string")  # lists and structs are looked at
        if own == self.text_column and "string" not in kind and kind not in ("list", "dict"):
            raise UserError(
                f"{self.name}: column {self.text_column!r} is {kind}, not text; name another with "
                "--data.text_column"
            )
        return rows.select_columns([own])

    def _usable(
        self, rows: Dataset, held_out: Container[int], counts: Counter[str]
    ) -> Iterator[Document]:
        """The rows with text in them; those whose numbers are in `held_out` are for validation."""
        batches = rows.iter(batch_size=ROWS_AT_ONCE)
        (own,) = rows.column_names
        values = (value for batch in batches for value in batch[own])
        used = 0
        for number, value in enumerate(values):
            where = f"{self.name}: row {number + 1}"
            if own != self.text_column:
                value = value_of({own: value}, self.text_column, where)
            text = "" if value is None else as_text(value, self.text_column, where)
            if not text or text.isspace():
                counts["empty documents"] += 1
                continue
            yield Document(text, f"{self.name}#{used % GROUPS}", number in held_out)
            used += 1


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
