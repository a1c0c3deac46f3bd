"""Causal self-attention with rotary positions.

Rows are padded on the right and attention is causal, so no real token ever sees a padding token:
padding needs no mask. Several windows may share a row; `segments.py` says which positions belong
together and picks the kernel.

On a CUDA device in half precision segments go to `varlen_attn`, which never computes a pair of
different segments (written to its documentation; not run on a GPU yet).

Shapes: B rows, T positions, D features, H heads, K key/value heads, C channels a head (`head_dim`),
by default D / H.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_embed.errors import UserError
from lightning_embed.model.cache import LayerCache
from lightning_embed.model.eager import RMSNorm, Rotation, norm_of_one, written_out
from lightning_embed.model.segments import KeyBias, KeyRange, OneQuery, Segments


def rotary_tables(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines `(..., C / 2)` in float32 at positions `(...)` (Su et al.,
    arXiv:2104.09864)."""
    exponents = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32)
    angles = positions.float().unsqueeze(-1) * theta ** -(exponents / head_dim)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, tables: tuple[Tensor, Tensor], dtype: torch.dtype | None = None) -> Tensor:
    """Rotate `x` `(B, H, T, C)` by its positions; pairs are (c, c + C/2), as in Llama on the Hub.

    The result is in `dtype`, by default that of `x`. Its halves are rounded before they are
    concatenated, because compiled code writes them to memory there: half as many bytes.
    """
    cos, sin = tables
    if written_out(x) and x.dtype == cos.dtype:
        rotated: Tensor = Rotation.apply(x, cos, sin)
        return rotated.to(dtype or x.dtype)
    left, right = x.chunk(2, dim=-1)
    halves = (left * cos - right * sin, right * cos + left * sin)
    return torch.cat([half.to(dtype or x.dtype) for half in halves], dim=-1)


def rotary_tables_of_one(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """The same for `rotate_one`: `(..., C)`, the first half of the sines negative."""
    cos, sin = rotary_tables(positions, head_dim, theta)
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def rotate_one(x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """`rotate` in three calls, for `x` `(B, H, 1, C)`."""
    cos, sin = tables
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


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


def attention_in_blocks(q: Tensor, k: Tensor, v: Tensor, keys: KeyBias) -> Tensor:
    """Explicit products in two blocks of queries, the first of which meets only the first half of
    the keys: a quarter of the scores, which would all be masked, is never computed.

    More blocks save more products, but each adds its part to the keys' gradients.
    """
    length = q.shape[2]
    q, k, v = q * q.shape[-1] ** -0.5, k.transpose(-2, -1), v.contiguous()
    mixed = []
    for queries in (slice(length // 2), slice(length // 2, length)):
        scores = (q[:, :, queries] @ k[..., : queries.stop]).add_(keys.of_queries(queries))
        mixed.append(scores.softmax(dim=-1).to(v.dtype) @ v[:, :, : queries.stop])
    return torch.cat([x.transpose(1, 2) for x in mixed], dim=1).transpose(1, 2)


def causal_attention(
    q: Tensor, k: Tensor, v: Tensor, segments: Segments | KeyRange | KeyBias
) -> Tensor:
    """softmax(q kᵀ / sqrt(C)) v, each query over its segment's keys up to itself.

    Args:
        q: `(B, H, T, C)`.
        k, v: `(B, K, T, C)`, K a divisor of H.
        segments: what `Segments.for_attention` returns; it decides which kernel runs.
    """
    groups = q.shape[1] // k.shape[1]
    if not isinstance(segments, Segments):
        if groups > 1:
            k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        if isinstance(segments, KeyBias):
            return attention_in_blocks(q, k, v, segments)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        scores = torch.where(segments.mask(), scores, float("-inf"))
        return scores.softmax(dim=-1).to(v.dtype) @ v
    if q.device.type == "cuda" and q.dtype in (torch.bfloat16, torch.float16):
        return ragged_attention(q, k, v, segments)
    mask = segments.key_range(1).mask()
    return F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=groups > 1)


class Attention(nn.Module):
    """`(B, T, D)` to `(B, T, D)`; parameter names are those of Llama and Qwen3 on the Hub."""

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        n_kv_heads: int | None = None,
        head_dim: int | None = None,
        *,
        qk_norm: bool = True,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
        if head_dim is None:
            if n_heads < 1 or d_model % n_heads or (d_model // n_heads) % 2:
                raise UserError(
                    f"d_model {d_model} must be n_heads {n_heads} times an even number; change"
                    " --model.d_model or --model.n_heads, or give --model.head_dim"
                )
            head_dim = d_model // n_heads
        if head_dim < 2 or head_dim % 2:
            raise UserError(
                f"--model.head_dim must be even and at least 2, not {head_dim}: it turns pairs"
            )
        if n_kv_heads < 1 or n_heads % n_kv_heads:
            raise UserError(
                f"n_heads {n_heads} must be a multiple of n_kv_heads {n_kv_heads};"
                " change --model.n_kv_heads"
            )
        self.head_dim = head_dim
        self.q_proj = nn.Linear(d_model, n_heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(d_model, n_kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(d_model, n_kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(n_heads * self.head_dim, d_model, bias=False)
        self.q_norm = RMSNorm(self.head_dim, eps=norm_eps) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(self.head_dim, eps=norm_eps) if qk_norm else nn.Identity()

    def forward(
        self,
        x: Tensor,
        tables: tuple[Tensor, Tensor],
        segments: Segments | KeyRange | KeyBias,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """Of all positions at once; an empty `cache` takes their keys and values."""
        heads = (*x.shape[:-1], -1, self.head_dim)  # B, T, heads, C
        # Under autocast a projection's output is half precision; norm and rotation run in the
        # stream's own dtype, the products in the projection's.
        q, k, v = (proj(x).view(heads) for proj in (self.q_proj, self.k_proj, self.v_proj))
        q = rotate(self.q_norm(q.to(x.dtype)).transpose(1, 2), tables, v.dtype)
        k = rotate(self.k_norm(k.to(x.dtype)).transpose(1, 2), tables, v.dtype)
        v = v.transpose(1, 2)
        if cache is not None:
            cache.extend(k, v)
        mixed = causal_attention(q, k, v, segments)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))

    def step(
        self, x: Tensor, tables: tuple[Tensor, Tensor], keys: OneQuery, cache: LayerCache
    ) -> Tensor:
        """The same of one further position a row, `(B, 1, D)`, over all keys of `cache`.

        Written for few calls, whose own time is most of a small network's: no axis is swapped, and
        the queries of a group are rows of one product.
        """
        heads = (len(x), -1, 1, self.head_dim)
        q, k, v = (proj(x).view(heads) for proj in (self.q_proj, self.k_proj, self.v_proj))
        q = rotate_one(norm_of_one(self.q_norm, q.to(x.dtype)), tables).to(v.dtype)
        k = rotate_one(norm_of_one(self.k_norm, k.to(x.dtype)), tables).to(v.dtype)
        k, v = (each[:, :, keys.first :] for each in cache.extend(k, v))
        groups = q.view(len(x), k.shape[1], -1, self.head_dim)
        mixed = F.scaled_dot_product_attention(groups, k, v, keys.mask)
        return self.o_proj(mixed.reshape(len(x), 1, -1))
