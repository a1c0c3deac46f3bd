"""A split of a data set as the `datasets` library has it: a table, of which one column is read.

Its rows come as those of a split that is read file by file do (`hub_files.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightning_embed.errors import UserError
from lightning_embed.sources.columns import require_column, value_of
from lightning_embed.sources.hub_files import Value

if TYPE_CHECKING:  # a second of start-up that other sources do not need
    from datasets import Dataset

ROWS_AT_ONCE = 1_000


@dataclass(frozen=True)
class Table:
    """One column of a split.

    Args:
        dataset: the split, of this column alone.
        own: the column's name.
        column: of the texts: `own`, or a dotted path into it.
        name: of the data set.
    """

    dataset: Dataset
    own: str
    column: str
    name: str
    revision: None = None

    @classmethod
    def of(cls, split: Dataset, column: str, name: str) -> Table:
        own = require_column(column, split.column_names, name)
        kind = getattr(split.features[own], "dtype", "string")  # lists and structs are looked at
        if own == column and "string" not in kind and kind not in ("list", "dict"):
            raise UserError(
                f"{name}: column {column!r} is {kind}, not text; name another with "
                "--data.text_column"
            )
        return cls(split.select_columns([own]), own, column, name)

    @property
    def rows(self) -> int:
        return len(self.dataset)

    def values(self, first: int = 0) -> Iterator[Value]:
        """The rows in order, as those of one file."""
        batches = self.dataset.iter(batch_size=ROWS_AT_ONCE)
        values = (value for batch in batches for value in batch[self.own])
        for number, value in enumerate(values, 1):
            where = f"{self.name}: row {number}"
            if self.own != self.column:
                value = value_of({self.own: value}, self.column, where)
            yield Value(0, where, value)
