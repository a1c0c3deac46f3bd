"""`DecoderLM`: a small decoder-only language model in plain PyTorch.

Knows: the Llama-shaped stack and its three ways out: logits, a summed loss, scores. Leaves to
others: training (`lightning_module.py`), sampling (`generate.py`).

Shapes: B rows, T positions, D features, V words.
"""

import math
from collections.abc import Callable, Iterator
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_embed.errors import UserError
from lightning_embed.model.attention import Attention, Reach, Segments, rotary_tables, visible_keys
from lightning_embed.model.compiling import set_up_compiler
from lightning_embed.model.loss import ChunkLoss, Scores, chunk_loss, cross_entropy_sum, score
from lightning_embed.padding.embedding import InitName, TokenEmbedding
from lightning_embed.special_tokens import PAD_ID


class FeedForward(nn.Module):
    """SwiGLU (Shazeer, arXiv:2002.05202), `(B, T, D)` to `(B, T, D)`."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(d_model, d_ff, bias=False)
        self.up_proj = nn.Linear(d_model, d_ff, bias=False)
        self.down_proj = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class FinalNorm(nn.RMSNorm):
    """A class of its own because `torch.compile` passes over a call of torch's own modules."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class Block(nn.Module):
    """Attention and feed-forward, each normalised before and added to the stream."""

    def __init__(
        self, d_model: int, d_ff: int, attention: Attention, dropout: float, norm_eps: float
    ) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(d_model, eps=norm_eps)
        self.attention = attention
        self.feed_forward_norm = nn.RMSNorm(d_model, eps=norm_eps)
        self.feed_forward = FeedForward(d_model, d_ff)
        # Not a Dropout of 0, whose two modes would be two graphs.
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(
        self,
        x: Tensor,
        tables: tuple[Tensor, Tensor],
        visible: Tensor | Segments | Reach | None = None,
    ) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), tables, visible))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class DecoderLM(nn.Module):
    """Ids `(B, T)` to logits `(B, T, V)`.

    Args:
        vocab_size: V.
        d_model: D, the width.
        n_layers, n_heads: depth and attention heads.
        n_kv_heads: key/value heads; fewer than `n_heads` is grouped-query attention.
        d_ff: hidden width of the feed-forward; by default 8/3 of `d_model`, rounded up to 32.
        padding_idx: the id whose vector is zero and which is never predicted.
        tied: the output head is the embedding matrix.
        qk_norm: normalise queries and keys (then the shape is Qwen3's, else Llama's).
        dropout: probability on the embedding and on each residual branch.
        scale_embedding, init: see `TokenEmbedding`.
        rope_theta: rotary base frequency.
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 256,
        n_layers: int = 4,
        n_heads: int = 4,
        n_kv_heads: int | None = None,
        d_ff: int | None = None,
        *,
        padding_idx: int = PAD_ID,
        tied: bool = True,
        qk_norm: bool = True,
        dropout: float = 0.0,
        scale_embedding: bool = False,
        init: InitName = "normal",
        rope_theta: float = 10_000.0,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        if n_layers < 1:
            raise UserError(f"n_layers must be at least 1, not {n_layers}; change --model.n_layers")
        if not 0 <= dropout < 1:
            raise UserError(
                f"dropout must be at least 0 and below 1, not {dropout}; change --model.dropout"
            )
        d_ff = math.ceil(d_model * 8 / 3 / 32) * 32 if d_ff is None else d_ff
        self.rope_theta = rope_theta
        self.n_heads, self.head_dim = n_heads, d_model // n_heads
        self.embedding = TokenEmbedding(
            vocab_size, d_model, padding_idx, scale=scale_embedding, init=init
        )
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(
                d_model,
                d_ff,
                Attention(d_model, n_heads, n_kv_heads, qk_norm=qk_norm, norm_eps=norm_eps),
                dropout,
                norm_eps,
            )
            for _ in range(n_layers)
        )
        self.norm = FinalNorm(d_model, eps=norm_eps)
        self.head = None if tied else nn.Linear(d_model, vocab_size, bias=False)
        self.chunk_loss: ChunkLoss = chunk_loss
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise everything; also after `to_empty()` from the meta device.

        Each residual branch starts at zero (its last matrix is zero), so every depth starts as the
        same function and needs no depth-dependent scale. A tied matrix starts at a standard
        deviation of 0.02: at D**-0.5 every token would begin by predicting itself.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
            elif isinstance(module, nn.RMSNorm | TokenEmbedding):
                module.reset_parameters()
        if self.head is None and self.embedding.init == "normal":
            with torch.no_grad():
                self.embedding.weight.mul_(0.02 * math.sqrt(self.embedding.embedding_dim))
        for block in self.layers():
            nn.init.zeros_(block.attention.o_proj.weight)
            nn.init.zeros_(block.feed_forward.down_proj.weight)

    def apply(self, fn: Callable[[nn.Module], None]) -> Self:
        """Like `nn.Module.apply`; an `fn` that walks all parameters or a tied head's weight comes
        after the embedding's own `apply`, so its row is zeroed once more."""
        super().apply(fn)
        self.embedding.zero_padding_()
        return self

    def layers(self) -> Iterator[Block]:
        """The blocks in order, typed."""
        for block in self.blocks:
            assert isinstance(block, Block)
            yield block

    def compile_parts(self) -> None:
        """Compile each block, the norm behind them and the loss in place; keys in the state dict
        stay as they are.

        A block at a time: all share one graph, so compiling costs a block's time and not the
        stack's. `dynamic=True` and never automatic, where gradients would depend on which shapes
        came before.
        """
        if self.compiled:
            return
        set_up_compiler()
        self.chunk_loss = torch.compile(chunk_loss, dynamic=True)
        for block in self.blocks:
            block.compile(dynamic=True)
        self.norm.compile(dynamic=True)

    @property
    def compiled(self) -> bool:
        return self.chunk_loss is not chunk_loss

    @property
    def head_weight(self) -> Tensor:
        """The output matrix `(V, D)`: the embedding's own when tied."""
        return self.embedding.weight if self.head is None else self.head.weight

    def training_flops(self, tokens: float, pairs: float) -> float:
        """Floating-point operations of forward and backward: 2 for each weight of a product and
        token, 4 D for each layer's query-key pair, three times.

        Args:
            tokens: real ones.
            pairs: of queries and keys under the causal mask, both real and of one window.
        """
        matrices = sum(p.numel() for p in self.blocks.parameters() if p.ndim == 2)
        width = self.embedding.embedding_dim
        return 3 * (
            2 * tokens * (matrices + self.head_weight.numel())
            + 4 * pairs * width * len(self.blocks)
        )

    def hidden(
        self, ids: Tensor, real: Tensor | None = None, segments: Segments | None = None
    ) -> Tensor:
        """The stream after the final norm, `(B, T, D)`.

        Args:
            ids: `(B, T)`.
            real: `(B, T)` bool, False at padding. Only rows padded on the left, or in between, need
                it: positions then count real tokens. Right padding needs no mask, see
                `attention.py`, and is faster without.
            segments: of rows that hold several windows, each to see only itself; not with `real`.
        """
        tables = rotary_tables(ids.shape[1], self.head_dim, self.rope_theta, ids.device)
        visible: Tensor | Segments | Reach
        if real is not None:
            positions, visible = (real.cumsum(dim=1) - 1).clamp(min=0), visible_keys(real)
        else:  # one kind of input, so that evaluation and samples compile nothing of their own
            segments = segments or Segments.of_whole_rows(ids.shape[0], ids.shape[1], ids.device)
            positions, visible = segments.positions(), segments.for_attention(self.n_heads)
        cos, sin = (table[positions].unsqueeze(1) for table in tables)  # (B, 1, T, C/2)
        x = self.dropout(self.embedding(ids))
        if self.compiled and not torch.is_grad_enabled():
            return self._evaluated(x, (cos, sin), visible)
        for block in self.blocks:
            x = block(x, (cos, sin), visible)
        return self.norm(x)

    @torch.enable_grad()
    def _evaluated(
        self, x: Tensor, tables: tuple[Tensor, Tensor], visible: Tensor | Segments | Reach
    ) -> Tensor:
        """Blocks and norm by the graphs that training compiled, else eager: graphs for evaluation
        alone would be no faster and take as long to compile, and the short shapes of a text that
        grows would each have one. What a block keeps for a backward pass goes at once.
        """
        with torch.compiler.set_stance("eager_on_recompile"):
            for block in self.blocks:
                x = block(x.requires_grad_(), tables, visible).detach()
            return self.norm(x.requires_grad_()).detach()

    def logits(self, hidden: Tensor) -> Tensor:
        """The output head, `(..., D)` to `(..., V)`; padding's logit is minus infinity."""
        if self.head is None:
            return self.embedding.logits(hidden)
        words = torch.arange(self.head.out_features, device=hidden.device)
        return self.head(hidden).masked_fill(words == self.embedding.padding_idx, float("-inf"))

    def forward(self, ids: Tensor, real: Tensor | None = None) -> Tensor:
        return self.logits(self.hidden(ids, real))

    def loss(
        self,
        ids: Tensor,
        targets: Tensor,
        real: Tensor | None = None,
        *,
        segments: Segments | None = None,
        repack: Tensor | None = None,
    ) -> Tensor:
        """Summed cross-entropy over real targets `(B, T)`; never holds the `(B, T, V)` logits.

        With `repack` `(R, W)`, see `Batch`, the work is done on those positions alone; `segments`
        are then about them.
        """
        if repack is not None:
            ids, targets = ids.flatten()[repack], targets.flatten()[repack]
        hidden = self.hidden(ids, real, segments).flatten(0, 1)
        return cross_entropy_sum(
            hidden, self.head_weight, targets.flatten(), self.embedding.padding_idx, self.chunk_loss
        )

    def score(
        self,
        ids: Tensor,
        targets: Tensor,
        *,
        segments: Segments | None = None,
        repack: Tensor | None = None,
    ) -> Scores:
        """Per-token negative log-likelihood and hits, each `(B, T)`, without gradients.

        `segments` and `repack` are those of `loss`; the result is padded all the same.
        """
        shape = targets.shape
        if repack is not None:
            ids, targets = ids.flatten()[repack], targets.flatten()[repack]
        hidden = self.hidden(ids, segments=segments).flatten(0, 1)
        scores = score(hidden, self.head_weight, targets.flatten(), self.embedding.padding_idx)
        if repack is not None:  # padding reads and writes one place of padding, whose score is 0
            scores = Scores(
                *(x.new_zeros(shape.numel()).scatter(0, repack.flatten(), x) for x in scores)
            )
        return Scores(*(x.view(shape) for x in scores))
