"""Documents from a data set on the Hub, or from a local folder of one.

Knows: how to get it with `datasets`, which splits and column it has, and what to hold out when it
has no validation split. Leaves to others: whether the Hub answers (`hub.py`), ids and windows
(`tokenizer.py`, `datamodule.py`). The rows stay where the `datasets` library keeps them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_embed.data.corpus_store import Corpus, fingerprint_of, require_both, set_aside
from lightning_embed.data.files import digests
from lightning_embed.data.hub_probe import require_hub
from lightning_embed.errors import UserError

if TYPE_CHECKING:  # a second of start-up that `--help` and `generate` do not need
    from datasets import Dataset

HELD_OUT_SHARE = 0.01
HELD_OUT_MOST = 10_000  # documents
GROUPS = 100  # made-up sources, so that a bootstrap over sources has groups to draw


@dataclass(frozen=True)
class HubCorpus:
    """A data set on the Hub by name and config, or a local folder of one.

    Without a validation split 1 % of train (1 to 10,000 documents, evenly spaced) is held out. The
    Hub's client keeps the data in its own cache; copies are not looked for. The fingerprint is of
    names and options only, as the contents cannot be had cheaply (of a local folder they can).
    """

    name: str
    config: str | None = None
    text_column: str = "text"
    train_split: str = "train"
    validation_split: str | None = "validation"

    def fingerprint(self) -> str:
        folder = Path(self.name)
        local = sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else []
        options = (self.name, self.config, self.text_column, self.train_split)
        return fingerprint_of("hub", digests(local), *options, self.validation_split)

    def load(self, cache_dir: Path) -> Corpus:
        counts: Counter[str] = Counter()
        notes: list[str] = []
        with _quiet():
            splits = self._splits()
            if self.train_split not in splits:
                raise UserError(
                    f"{self.name} has no split {self.train_split!r}: it has {', '.join(splits)}"
                )
            train = self._usable(splits[self.train_split], counts)
            if self.validation_split is not None and self.validation_split in splits:
                validation = self._usable(splits[self.validation_split], counts)
            else:
                train, validation = _evenly_held_out(train)
                share = len(validation) / max(1, len(train) + len(validation))
                notes.append(f"held out: {share:.2%} of split {self.train_split!r}, evenly spaced")
            for split, rows in (("train", train), ("validation", validation)):
                for what, number in (("documents", len(rows)), ("bytes", _text_bytes(rows))):
                    counts[what] += number
                    counts[f"{split} {what}"] = number
            require_both(counts, f"{self.name}'s text")
        title = f"{self.name}{f' ({self.config})' if self.config else ''}"
        return Corpus(train, validation, title, dict(counts), [*notes, *set_aside(counts)])

    def _splits(self) -> dict[str, Dataset]:
        import datasets

        if not Path(self.name).is_dir():
            require_hub(self.name, "--data.files")
        try:
            splits: dict[str, Dataset] = datasets.load_dataset(self.name, self.config)
        except (ValueError, OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"data set {self.name!r} (config {self.config!r}) cannot be had: {reason}; correct "
                "--data.hub or --data.hub_config, or give local files with --data.files"
            ) from None
        return splits

    def _usable(self, rows: Dataset, counts: Counter[str]) -> Dataset:
        """The rows with text in them, as columns `text` and `source`."""
        import numpy as np
        import pyarrow.compute as pc

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
        rows = rows.select_columns([self.text_column])
        if self.text_column != "text":
            rows = rows.rename_column(self.text_column, "text")
        usable = [np.zeros(0, dtype=bool)]
        for table in rows.with_format("arrow").iter(batch_size=10_000):
            trimmed = pc.utf8_trim_whitespace(pc.fill_null(table.column("text"), ""))
            usable.append(pc.greater(pc.binary_length(trimmed), 0).to_numpy())
        kept = np.flatnonzero(np.concatenate(usable))
        if len(kept) < len(rows):
            counts["empty documents"] += len(rows) - len(kept)
            rows = rows.select(kept)
        return rows.add_column("source", [f"{self.name}#{i % GROUPS}" for i in range(len(rows))])


def _evenly_held_out(rows: Dataset) -> tuple[Dataset, Dataset]:
    """Train and validation: 1 % of the rows at even distances, in order."""
    import numpy as np

    count = min(max(1, int(len(rows) * HELD_OUT_SHARE)), HELD_OUT_MOST, len(rows))
    held_out = np.zeros(len(rows), dtype=bool)
    held_out[(np.arange(count) * len(rows)) // max(1, count)] = True
    return rows.select(np.flatnonzero(~held_out)), rows.select(np.flatnonzero(held_out))


def _text_bytes(rows: Dataset) -> int:
    import pyarrow.compute as pc

    batches = rows.with_format("arrow").iter(batch_size=10_000)
    return sum(pc.sum(pc.binary_length(table.column("text"))).as_py() or 0 for table in batches)


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
