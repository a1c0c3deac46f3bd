"""One layer of the decoder: attention and a feed-forward network round a residual stream.

Shapes: B rows, T positions, D features.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_embed.model.attention import Attention
from lightning_embed.model.cache import LayerCache
from lightning_embed.model.eager import RMSNorm, norm_of_one
from lightning_embed.model.segments import KeyBias, KeyRange, OneQuery, Segments


class FeedForward(nn.Module):
    """SwiGLU (Shazeer, arXiv:2002.05202), `(B, T, D)` to `(B, T, D)`."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(d_model, d_ff, bias=False)
        self.up_proj = nn.Linear(d_model, d_ff, bias=False)
        self.down_proj = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and added to the residual stream."""

    def __init__(
        self, d_model: int, d_ff: int, attention: Attention, dropout: float, norm_eps: float
    ) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(d_model, eps=norm_eps)
        self.attention = attention
        self.feed_forward_norm = RMSNorm(d_model, eps=norm_eps)
        self.feed_forward = FeedForward(d_model, d_ff)
        # Not a Dropout of 0, whose two modes would be two graphs.
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(
        self,
        x: Tensor,
        tables: tuple[Tensor, Tensor],
        segments: Segments | KeyRange | KeyBias,
        cache: LayerCache | None = None,
    ) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), tables, segments, cache))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))

    def step(
        self, x: Tensor, tables: tuple[Tensor, Tensor], keys: OneQuery, cache: LayerCache
    ) -> Tensor:
        """The same of one further position a row, in evaluation; see `Attention.step`."""
        x = x + self.attention.step(norm_of_one(self.attention_norm, x), tables, keys, cache)
        return x + self.feed_forward(norm_of_one(self.feed_forward_norm, x))
