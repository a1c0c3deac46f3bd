"""Keys and values of the positions a network has read, so that each new token costs one position.

Rows of different lengths are aligned at their ends, as if padded on the left: all rows write their
next position into the same slot, and the text of row b lies in the slots from `first[b]` on. What
lies before is hidden by a mask. `DecoderLM.fill` and `step` read into a cache;
`inference/generate.py` says what happens to a row that has become as long as a training window.

Shapes: B rows, T new positions, K key/value heads, S slots, C channels a head.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_embed.model.segments import OneQuery, Segments


class LayerCache:
    """Keys and values of one layer, in the first `end` slots of a larger tensor."""

    def __init__(self) -> None:
        self.end = 0
        self._store: Tensor | None = None  # (2, B, K, S, C)

    @property
    def store(self) -> Tensor:
        assert self._store is not None, "nothing was read yet"
        return self._store

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append `(B, K, T, C)` of each; returns those of all slots."""
        begin, self.end = self.end, self.end + keys.shape[2]
        if self._store is None or self.end > self._store.shape[3]:
            larger = keys.new_empty(2, *keys.shape[:2], 2 * self.end, keys.shape[3])
            if self._store is not None:
                larger[:, :, :, :begin] = self._store[:, :, :, :begin]
            self._store = larger
        self._store[0, :, :, begin : self.end] = keys
        self._store[1, :, :, begin : self.end] = values
        whole = self._store[:, :, :, : self.end]
        return whole[0], whole[1]

    def drop_slots(self, count: int) -> None:
        """Forget the first slots and move the others there."""
        self.store[:, :, :, : self.end - count] = self.store[:, :, :, count : self.end].clone()
        self.end -= count

    def keep_rows(self, rows: Tensor) -> None:
        self._store = self.store[:, rows]

    def replace(self, rows: Tensor, other: "LayerCache") -> None:
        """Put another cache's rows into the last slots of these."""
        self.store[:, rows, :, self.end - other.end : self.end] = other.store[:, :, :, : other.end]


class KeyValueCache:
    """Of all layers, for rows of given lengths.

    Args:
        n_layers: of the network.
        lengths: positions that each row will be filled with first.
    """

    def __init__(self, n_layers: int, lengths: Sequence[int]) -> None:
        self.layers = [LayerCache() for _ in range(n_layers)]
        self.first = [max(lengths) - length for length in lengths]

    @property
    def end(self) -> int:
        return self.layers[0].end

    @property
    def lengths(self) -> list[int]:
        """Positions that each row holds."""
        return [self.end - first for first in self.first]

    def segments(self, length: int, device: torch.device) -> Segments:
        """Where each row lies in `length` slots, which fill the empty cache."""
        return Segments.of_rows_at_the_right(torch.tensor(self.first, device=device), length)

    def one_query(self, device: torch.device) -> tuple[Tensor, OneQuery]:
        """Of each row's next position: where in its row it stands, `(B, 1)`, and the keys it
        sees."""
        first, seen = torch.tensor(self.first, device=device), min(self.first)
        mask = None
        if max(self.first) > seen:
            slots = torch.arange(seen, self.end + 1, device=device)
            mask = (slots >= first[:, None])[:, None, None]
        return (self.end - first)[:, None], OneQuery(seen, mask)

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Forget the other rows."""
        self.first = [self.first[row] for row in rows]
        for layer in self.layers:
            layer.keep_rows(torch.tensor(rows, device=layer.store.device))

    def replace(self, rows: Sequence[int], other: "KeyValueCache") -> None:
        """Let these rows hold what the rows of `other`, which are of one length, hold."""
        for row in rows:
            self.first[row] = self.end - other.end
        for layer, new in zip(self.layers, other.layers, strict=True):
            layer.replace(torch.tensor(rows, device=layer.store.device), new)
        unused = min(self.first)
        if unused > self.end // 2:
            self.first = [first - unused for first in self.first]
            for layer in self.layers:
                layer.drop_slots(unused)
