"""A data set on the Hub, or a local folder of one, as a source, read with the `datasets` library.

Whether the Hub answers at all is asked in `hub_probe.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_embed.data.files import digests
from lightning_embed.data.hub_probe import require_hub
from lightning_embed.data.source import About, Document, fingerprint_of
from lightning_embed.errors import UserError

if TYPE_CHECKING:  # a second of start-up that other sources do not need
    from datasets import Dataset

HELD_OUT_SHARE = 0.01
HELD_OUT_MOST = 10_000  # documents
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
        text_column: where rows keep the text.
        train_split: name of the split to train on.
        validation_split: name of the one held out; None never looks for it.
    """

    name: str
    config: str | None = None
    text_column: str = "text"
    train_split: str = "train"
    validation_split: str | None = "validation"

    @cached_property
    def fingerprint(self) -> str:
        folder = Path(self.name)
        local = sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else []
        options = (self.name, self.config, self.text_column, self.train_split)
        return fingerprint_of("hub", RECIPE, digests(local), *options, self.validation_split)

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
        try:
            with _quiet():
                splits: dict[str, Dataset] = datasets.load_dataset(self.name, self.config)
        except (ValueError, OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"data set {self.name!r} (config {self.config!r}) cannot be had: {reason}; correct "
                "--data.hub or --data.hub_config, or give local files with --data.files"
            ) from None
        return splits

    def _column(self, rows: Dataset) -> Dataset:
        """The texts alone, as a data set with one column."""
        if self.text_column not in rows.column_names:
            raise UserError(
                f"{self.name} has no column {self.text_column!r}: name one of "
                f"{', '.join(map(repr, rows.column_names))} with --data.text_column"
            )
        kind = str(getattr(rows.features[self.text_column], "dtype", "no text"))
        if "string" not in kind:
            raise UserError(
                f"{self.name}: column {self.text_column!r} is {kind}, not text; name another with "
                "--data.text_column"
            )
        return rows.select_columns([self.text_column])

    def _usable(
        self, rows: Dataset, held_out: Container[int], counts: Counter[str]
    ) -> Iterator[Document]:
        """The rows with text in them; those whose numbers are in `held_out` are for validation."""
        batches = rows.iter(batch_size=ROWS_AT_ONCE)
        texts = (text for batch in batches for text in batch[self.text_column])
        used = 0
        for number, text in enumerate(texts):
            if not text or text.isspace():
                counts["empty documents"] += 1
                continue
            yield Document(text, f"{self.name}#{used % GROUPS}", number in held_out)
            used += 1


def evenly_spaced(rows: int) -> set[int]:
    """The numbers of 1 % of the rows, at even distances."""
    count = min(max(1, int(rows * HELD_OUT_SHARE)), HELD_OUT_MOST, rows)
    return {(number * rows) // count for number in range(count)}


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of the `datasets` library, which would fill the log."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
