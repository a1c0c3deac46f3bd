"""Which positions of a batch's rows belong together, so that windows that share a row stay apart.

A row holds one window, or several one after the other, then padding. Attention may cross no border
between windows; `attention.py` takes what `Segments.for_attention` returns.

Shapes: B rows, T positions, H heads.
"""

from typing import NamedTuple

import torch
from torch import Tensor

# Up to this many positions the explicit product beats the fused CPU kernel, whose backward is slow;
# beyond, its (T, T) scores cost more memory than the time they save.
EXPLICIT_UP_TO = 512


class KeyRange(NamedTuple):
    """The keys of its row that each query attends to, from `first` to `last`: both (B, H, T, 1)
    int32.

    They are the same for all heads but stored for each head, because compiled code then computes
    the softmax in one pass over the scores. `keys` (T,) int32 are 0, 1, ..., passed in because
    compiled code would generate them one by one, which takes a quarter of that pass.
    """

    first: Tensor
    last: Tensor
    keys: Tensor

    def mask(self) -> Tensor:
        """`(B, H, T, T)`, True at the keys a query attends to."""
        return (self.keys >= self.first) & (self.keys <= self.last)


class KeyBias(NamedTuple):
    """What is added to the scores instead: `bias` `(B, 1, T, T)` is 0 at the keys a query attends
    to and minus infinity at all others.

    Where nothing is compiled it is made once for all layers, takes one pass over the scores, and
    none over their gradients.
    """

    bias: Tensor

    def of_queries(self, queries: slice) -> Tensor:
        """Of some queries and all keys up to the last of them."""
        return self.bias[:, :, queries, : queries.stop]


class OneQuery(NamedTuple):
    """One new position of each row, whose keys lie in a cache (`cache.py`).

    `first` is the first slot that any row uses; `mask` `(B, 1, 1, S - first)` is True at the slots
    from there on that a row uses, None where all use all.
    """

    first: int
    mask: Tensor | None


class Segments(NamedTuple):
    """The windows of each row; both fields say the same, in the forms that two kernels take."""

    start: Tensor  # (B, T) int32, where in its row each position's segment begins
    cu_seqlens: Tensor  # (segments + 1,) int32, segments' starts in the flattened rows, and the end

    @classmethod
    def of_whole_rows(cls, rows: int, length: int, device: torch.device) -> "Segments":
        """One segment for each row. It may end in padding: attention is causal, so no real token
        sees what stands to its right."""
        return cls(
            torch.zeros(rows, length, device=device, dtype=torch.int32),
            torch.arange(rows + 1, device=device, dtype=torch.int32) * length,
        )

    @classmethod
    def of_rows_at_the_right(cls, first: Tensor, length: int) -> "Segments":
        """Rows that begin at `first` `(B,)`, behind padding, each position of which sees itself
        alone."""
        slots = torch.arange(length, device=first.device, dtype=torch.int32)
        start = slots.minimum(first[:, None].to(torch.int32))
        begins = (start == slots).flatten().nonzero().squeeze(1).to(torch.int32)
        return cls(start, torch.cat([begins, begins.new_tensor([start.numel()])]))

    def positions(self) -> Tensor:
        """`(B, T)`, positions counted from each segment's beginning."""
        return torch.arange(self.start.shape[1], device=self.start.device) - self.start

    def key_range(self, heads: int) -> KeyRange:
        """Each position's own segment up to itself."""
        shape = self.start.shape[0], heads, self.start.shape[1], 1
        keys = torch.arange(shape[2], device=self.start.device, dtype=torch.int32)
        first, last = self.start[:, None, :, None], keys[:, None]
        return KeyRange(first.expand(shape).contiguous(), last.expand(shape).contiguous(), keys)

    def key_bias(self) -> KeyBias:
        """The same as `key_range`, to be added to scores."""
        hidden = ~self.key_range(1).mask()
        return KeyBias(
            torch.zeros_like(hidden, dtype=torch.float32).masked_fill(hidden, -torch.inf)
        )

    def for_attention(self, heads: int, compiled: bool = False) -> "Segments | KeyRange | KeyBias":
        """The form in which `causal_attention` is fastest on this device, compiled or not."""
        if self.start.device.type != "cpu" or self.start.shape[1] > EXPLICIT_UP_TO:
            return self
        return self.key_range(heads) if compiled else self.key_bias()
