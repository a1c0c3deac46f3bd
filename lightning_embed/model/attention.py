"""Causal self-attention with rotary positions over right-padded and packed rows.

Knows: rotary tables, query-key normalisation, grouped queries, which kernel is fastest where.
Leaves to others: residuals and feed-forward (`model.py`), which positions are real (`loss.py`).

Rows are right-padded and attention is causal, so no real token ever sees a padding token and a
window that has a row to itself needs no mask beyond the causal one. `Segments` keep several windows
in a row apart; rows padded elsewhere need a mask (`visible_keys`).

On a CUDA device in half precision segments are attended to by `varlen_attn`, which never touches a
pair of different segments (written to its documentation; not run on a GPU yet).

Shapes: B rows, T positions, H heads, K key/value heads, C channels a head (`head_dim`), D = H·C.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_embed.errors import UserError

# Up to this many positions the explicit product beats the fused CPU kernel, whose backward is slow;
# beyond, its (T, T) scores cost more memory than the time they save.
EXPLICIT_UP_TO = 512


class Reach(NamedTuple):
    """The keys of its row that each query sees, from `first` to `last`: both (B, H, T, 1) int32.

    The same for all heads and laid out for each all the same, because a compiler that finds every
    query's in a line of its own does a softmax in one pass over the scores. `keys` (T,) int32 are
    0, 1, ..., handed over because compiled code counts them out one by one, which takes a quarter
    of that pass.
    """

    first: Tensor
    last: Tensor
    keys: Tensor

    def visible(self) -> Tensor:
        """`(B, H, T, T)`, True at keys within reach."""
        return (self.keys >= self.first) & (self.keys <= self.last)


class Segments(NamedTuple):
    """Which positions belong together: a row is its windows one after the other, then padding.

    Both say the same, each in the form that a kernel wants.
    """

    start: Tensor  # (B, T) int32, where in its row each position's segment begins
    cu_seqlens: Tensor  # (segments + 1,) int32, their beginnings in the flattened rows, and the end

    @classmethod
    def of_whole_rows(cls, rows: int, length: int, device: torch.device) -> "Segments":
        """Each row one segment, which right padding may end: nothing real sees it."""
        return cls(
            torch.zeros(rows, length, device=device, dtype=torch.int32),
            torch.arange(rows + 1, device=device, dtype=torch.int32) * length,
        )

    def positions(self) -> Tensor:
        """`(B, T)`, positions counted from each segment's beginning."""
        return torch.arange(self.start.shape[1], device=self.start.device) - self.start

    def reach(self, heads: int) -> Reach:
        """Each position's own segment up to itself."""
        shape = self.start.shape[0], heads, self.start.shape[1], 1
        positions = torch.arange(shape[2], device=self.start.device, dtype=torch.int32)
        first, last = self.start[:, None, :, None], positions[:, None]
        return Reach(first.expand(shape).contiguous(), last.expand(shape).contiguous(), positions)

    def for_attention(self, heads: int) -> "Segments | Reach":
        """What `causal_attention` is fastest with on this device."""
        explicit = self.start.device.type == "cpu" and self.start.shape[1] <= EXPLICIT_UP_TO
        return self.reach(heads) if explicit else self


def visible_keys(real: Tensor) -> Tensor:
    """What each query may attend to, `(B, 1, T, T)`, when only `real` `(B, T)` positions count.

    A padding query sees itself, so that its softmax is not over nothing.
    """
    positions = torch.arange(real.shape[1], device=real.device)
    past, itself = positions <= positions.unsqueeze(1), positions == positions.unsqueeze(1)
    return (past & real.unsqueeze(1) | itself).unsqueeze(1)


def rotary_tables(
    length: int, head_dim: int, theta: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosines and sines `(T, C / 2)` in float32 (Su et al., arXiv:2104.09864)."""
    exponents = torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim
    angles = torch.outer(
        torch.arange(length, device=device, dtype=torch.float32), theta**-exponents
    )
    return angles.cos(), angles.sin()


def rotate(x: Tensor, tables: tuple[Tensor, Tensor], dtype: torch.dtype | None = None) -> Tensor:
    """Turn `x` `(B, H, T, C)` by its positions; pairs are (c, c + C/2), as in Llama on the Hub.

    The result is in `dtype`, by default that of `x`; rounded before its halves are put together,
    because compiled code writes them down to do so.
    """
    cos, sin = tables
    left, right = x.chunk(2, dim=-1)
    turned = (left * cos - right * sin, right * cos + left * sin)
    return torch.cat([half.to(dtype or x.dtype) for half in turned], dim=-1)


def ragged_attention(q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
    """Causal attention inside segments by a kernel over ragged tokens: CUDA, half precision."""
    from torch.nn.attention.varlen import varlen_attn

    rows, heads, length, head_dim = q.shape
    if k.shape[1] < heads:  # torch 2.11's kernel has no grouped queries
        k, v = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (k, v))
    flat = [x.transpose(1, 2).reshape(rows * length, heads, head_dim) for x in (q, k, v)]
    cu_seqlens = segments.cu_seqlens
    mixed = varlen_attn(
        flat[0], flat[1], flat[2], cu_seqlens, cu_seqlens, length, length, window_size=(-1, 0)
    )
    assert isinstance(mixed, Tensor)
    return mixed.view(rows, length, heads, head_dim).transpose(1, 2)


def causal_attention(
    q: Tensor, k: Tensor, v: Tensor, visible: Tensor | Segments | Reach | None = None
) -> Tensor:
    """softmax(q kᵀ / sqrt(C)) v under the causal mask; q `(B, H, T, C)`, k and v `(B, K, T, C)`.

    `visible`: segments that see only themselves, or their reach, see `Segments.for_attention`; or,
    see `visible_keys`, a mask that takes the causal one's place and shows no later key either.
    """
    groups = q.shape[1] // k.shape[1]
    if isinstance(visible, Reach):
        if groups > 1:
            k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        scores = torch.where(visible.visible(), scores, float("-inf"))
        return scores.softmax(dim=-1).to(v.dtype) @ v
    if isinstance(visible, Segments):
        if q.device.type == "cuda" and q.dtype in (torch.bfloat16, torch.float16):
            return ragged_attention(q, k, v, visible)
        visible = visible.reach(1).visible()
    return F.scaled_dot_product_attention(
        q, k, v, visible, is_causal=visible is None, enable_gqa=groups > 1
    )


class Attention(nn.Module):
    """`(B, T, D)` to `(B, T, D)`; parameter names are those of Llama and Qwen3 on the Hub."""

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        n_kv_heads: int | None = None,
        *,
        qk_norm: bool = True,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
        if n_heads < 1 or d_model % n_heads or (d_model // n_heads) % 2:
            raise UserError(
                f"d_model {d_model} must be n_heads {n_heads} times an even number;"
                " change --model.d_model or --model.n_heads"
            )
        if n_kv_heads < 1 or n_heads % n_kv_heads:
            raise UserError(
                f"n_heads {n_heads} must be a multiple of n_kv_heads {n_kv_heads};"
                " change --model.n_kv_heads"
            )
        self.head_dim = d_model // n_heads
        self.q_proj = nn.Linear(d_model, n_heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(d_model, n_kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(d_model, n_kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(n_heads * self.head_dim, d_model, bias=False)
        self.q_norm = nn.RMSNorm(self.head_dim, eps=norm_eps) if qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(self.head_dim, eps=norm_eps) if qk_norm else nn.Identity()

    def forward(
        self,
        x: Tensor,
        tables: tuple[Tensor, Tensor],
        visible: Tensor | Segments | Reach | None = None,
    ) -> Tensor:
        heads = (*x.shape[:-1], -1, self.head_dim)  # B, T, heads, C
        # Under autocast a projection's output is half precision; norm and rotation run in the
        # stream's own dtype, the products in the projection's.
        q, k, v = (proj(x).view(heads) for proj in (self.q_proj, self.k_proj, self.v_proj))
        q = rotate(self.q_norm(q.to(x.dtype)).transpose(1, 2), tables, v.dtype)
        k = rotate(self.k_norm(k.to(x.dtype)).transpose(1, 2), tables, v.dtype)
        mixed = causal_attention(q, k, v.transpose(1, 2), visible)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))
