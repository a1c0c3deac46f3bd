"""`DecoderLM`: a small decoder-only language model in plain PyTorch, of the shape of Llama.

It returns logits, a summed loss or scores of given targets. The signature of its constructor is the
one list of what can be set about a network: command-line options, hyperparameters in checkpoints
and what a checkpoint fixes follow from it. `lightning_module.py` trains it.

Shapes: B rows, T positions, D features, V words.
"""

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from lightning_embed.errors import require_range
from lightning_embed.library_internals import configure_compiler
from lightning_embed.model.attention import Attention, rotary_tables, rotary_tables_of_one
from lightning_embed.model.block import Block
from lightning_embed.model.cache import KeyValueCache
from lightning_embed.model.eager import RMSNorm, norm_of_one
from lightning_embed.model.loss import (
    ChunkLoss,
    Scores,
    chunk_loss,
    chunk_loss_to_compile,
    cross_entropy_sum,
    score,
)
from lightning_embed.model.segments import KeyBias, KeyRange, Segments
from lightning_embed.padding.embedding import InitName, TokenEmbedding
from lightning_embed.special_tokens import PAD_ID


class _NothingDrawn(TorchFunctionMode):
    """Draws into tensors without memory do nothing, as they would in the end; torch would import
    its compiler for them, which takes a second."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in (
            "normal_",
            "uniform_",
            "kaiming_normal_",
            "kaiming_uniform_",
        ):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


class DecoderLM(nn.Module):
    """Ids `(B, T)` to logits `(B, T, V)`.

    Args:
        vocab_size: V.
        d_model: width, D.
        n_layers: depth.
        n_heads: attention heads.
        n_kv_heads: key/value heads; fewer than `n_heads` is grouped-query attention; unset, as many
            as `n_heads`.
        d_ff: hidden width of the feed-forward; unset, 8/3 of `d_model`, rounded up to 32.
        head_dim: width of a head; unset, `d_model` divided by `n_heads`.
        padding_idx: the id whose vector is zero and which is never predicted.
        tied: the output head is the embedding matrix.
        qk_norm: normalise queries and keys (then the shape is Qwen3's, else Llama's).
        dropout: probability on the embedding and on each residual branch.
        scale_embedding: multiply embeddings by sqrt(D).
        init: the embedding's initialisation, see `TokenEmbedding`.
        rope_theta: rotary base frequency.
        norm_eps: epsilon of the RMS norms.
        checkpoint_activations: keep only each block's input for the backward pass, which computes
            the block once more: less memory, more time, the same numbers.

    Raises:
        UserError: settings that cannot be, with the flag to change.
    """

    # Settings that may differ from those a checkpoint was trained with; all others it fixes.
    FREE = ("dropout", "init", "checkpoint_activations")

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 256,
        n_layers: int = 4,
        n_heads: int = 4,
        n_kv_heads: int | None = None,
        d_ff: int | None = None,
        head_dim: int | None = None,
        *,
        padding_idx: int = PAD_ID,
        tied: bool = True,
        qk_norm: bool = True,
        dropout: float = 0.0,
        scale_embedding: bool = False,
        init: InitName = "normal",
        rope_theta: float = 10_000.0,
        norm_eps: float = 1e-6,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        sizes = {"d_model": d_model, "n_layers": n_layers, "n_heads": n_heads, "d_ff": d_ff}
        for name, size in sizes.items():
            require_range(f"--model.{name}", size, at_least=1)
        require_range("--model.dropout", dropout, at_least=0, below=1)
        require_range("--model.rope_theta", rope_theta, above=0)
        require_range("--model.norm_eps", norm_eps, above=0)
        d_ff = math.ceil(d_model * 8 / 3 / 32) * 32 if d_ff is None else d_ff
        self.rope_theta, self.checkpoint_activations = rope_theta, checkpoint_activations
        self.n_heads = n_heads
        self.embedding = TokenEmbedding(
            vocab_size, d_model, padding_idx, scale=scale_embedding, init=init
        )
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(
                d_model,
                d_ff,
                Attention(
                    d_model,
                    n_heads,
                    n_kv_heads,
                    head_dim,
                    qk_norm=qk_norm,
                    norm_eps=norm_eps,
                ),
                dropout,
                norm_eps,
            )
            for _ in range(n_layers)
        )
        self.head_dim = next(self.layers()).attention.head_dim
        self.norm = RMSNorm(d_model, eps=norm_eps)
        self.head = None if tied else nn.Linear(d_model, vocab_size, bias=False)
        self.chunk_loss: ChunkLoss = chunk_loss
        self.reset_parameters()

    @classmethod
    def settings(cls, **given: Any) -> dict[str, Any]:
        """Every setting with its value, `given` or default, but for `vocab_size` and `padding_idx`,
        which follow from the tokenizer.

        Raises:
            TypeError: there is no setting of that name.
        """
        bound = inspect.signature(cls).bind(0, padding_idx=PAD_ID, **given)
        bound.apply_defaults()
        return {k: v for k, v in bound.arguments.items() if k not in ("vocab_size", "padding_idx")}

    @classmethod
    def outline(cls, vocab_size: int, settings: dict[str, Any], one_layer: bool = False) -> Self:
        """The network, or its first layer alone, without memory: its shapes are known, impossible
        settings refused, and nothing is drawn."""
        if one_layer:
            settings = settings | {"n_layers": min(1, cls.settings(**settings)["n_layers"])}
        with torch.device("meta"), _NothingDrawn():
            return cls(vocab_size, **settings)

    @classmethod
    def parameter_count(cls, vocab_size: int, settings: dict[str, Any]) -> int:
        """How many parameters the network would have."""
        model = cls.outline(vocab_size, settings, one_layer=True)
        count = sum(p.numel() for p in model.parameters())
        more = cls.settings(**settings)["n_layers"] - 1
        return count + more * sum(p.numel() for p in model.blocks.parameters())

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
        """Like `nn.Module.apply`, then zeroes the padding row once more: `fn` may have written it
        through a tied head or this module's parameters after the embedding's own `apply`."""
        super().apply(fn)
        self.embedding.zero_padding_()
        return self

    def layers(self) -> Iterator[Block]:
        """The blocks in order, typed."""
        for block in self.blocks:
            assert isinstance(block, Block)
            yield block

    def compile_parts(self) -> None:
        """Compile each block, the final norm and the loss in place; state-dict keys stay the same.

        One block at a time: all share a graph, so compiling takes the time of one block and not of
        the stack. `dynamic=True`, because with automatic dynamic shapes the gradients' roundings
        would depend on which shapes came before.
        """
        if self.compiled:
            return
        configure_compiler()
        self.chunk_loss = torch.compile(chunk_loss_to_compile, dynamic=True)
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
        token, 4 D (heads' widths together) for each layer's query-key pair, three times.

        Args:
            tokens: real ones.
            pairs: of queries and keys under the causal mask, both real and of one window.
        """
        matrices = sum(p.numel() for p in self.blocks.parameters() if p.ndim == 2)
        width = self.n_heads * self.head_dim
        return 3 * (
            2 * tokens * (matrices + self.head_weight.numel())
            + 4 * pairs * width * len(self.blocks)
        )

    def hidden(self, ids: Tensor, segments: Segments | None = None) -> Tensor:
        """The stream after the final norm, `(B, T, D)`.

        Args:
            ids: `(B, T)`.
            segments: of rows that hold several windows; without, each row is one.
        """
        every = torch.arange(ids.shape[1], device=ids.device)
        tables = rotary_tables(every, self.head_dim, self.rope_theta)
        # Always segments, so that evaluation and samples need no compiled graph of their own.
        segments = segments or Segments.of_whole_rows(ids.shape[0], ids.shape[1], ids.device)
        positions, keys = segments.positions(), segments.for_attention(self.n_heads, self.compiled)
        cos, sin = (table[positions].unsqueeze(1) for table in tables)  # (B, 1, T, C/2)
        x = self.dropout(self.embedding(ids))
        if self.compiled and not torch.is_grad_enabled():
            return self._evaluated(x, (cos, sin), keys)
        for block in self.blocks:
            if self.checkpoint_activations and torch.is_grad_enabled():
                x = checkpoint(
                    block,
                    x,
                    (cos, sin),
                    keys,
                    use_reentrant=False,
                    preserve_rng_state=self.dropout.p > 0,
                )
            else:
                x = block(x, (cos, sin), keys)
        return self.norm(x)

    @torch.enable_grad()
    def _evaluated(
        self, x: Tensor, tables: tuple[Tensor, Tensor], segments: Segments | KeyRange | KeyBias
    ) -> Tensor:
        """Blocks and norm by the graphs that training compiled, which need gradients enabled, else
        eager. Graphs for evaluation alone would be no faster and take as long to compile. What a
        block keeps for a backward pass is freed at once.
        """
        with torch.compiler.set_stance("eager_on_recompile"):
            for block in self.blocks:
                x = block(x.requires_grad_(), tables, segments).detach()
            return self.norm(x.requires_grad_()).detach()

    def fill(self, ids: Tensor, cache: KeyValueCache) -> Tensor:
        """Read rows into an empty cache; the stream after the final norm, `(B, T, D)`.

        Always eager, as `step`: the graphs that training compiled are for other shapes.

        Args:
            ids: `(B, T)`, shorter rows padded on the left.
        """
        segments = cache.segments(ids.shape[1], ids.device)
        positions, keys = segments.positions(), segments.for_attention(self.n_heads)
        tables = rotary_tables(positions.unsqueeze(1), self.head_dim, self.rope_theta)
        x = self.dropout(self.embedding(ids))
        for block, layer in zip(self.layers(), cache.layers, strict=True):
            x = block.forward(x, tables, keys, layer)
        return self.norm.forward(x)

    def step(self, ids: Tensor, cache: KeyValueCache) -> Tensor:
        """Read one further id of each row, `(B, 1)`; the stream after the final norm, `(B, D)`."""
        positions, keys = cache.one_query(ids.device)
        tables = rotary_tables_of_one(positions.unsqueeze(1), self.head_dim, self.rope_theta)
        x = self.embedding(ids)
        for block, layer in zip(self.layers(), cache.layers, strict=True):
            x = block.step(x, tables, keys, layer)
        return norm_of_one(self.norm, x).squeeze(1)

    def logits(self, hidden: Tensor) -> Tensor:
        """The output head, `(..., D)` to `(..., V)`; padding's logit is minus infinity."""
        if self.head is None:
            return self.embedding.logits(hidden)
        words = torch.arange(self.head.out_features, device=hidden.device)
        return self.head(hidden).masked_fill(words == self.embedding.padding_idx, float("-inf"))

    def forward(self, ids: Tensor) -> Tensor:
        return self.logits(self.hidden(ids))

    def loss(
        self,
        ids: Tensor,
        targets: Tensor,
        segments: Segments | None = None,
        repack: Tensor | None = None,
    ) -> Tensor:
        """Summed cross-entropy over real targets `(B, T)`; never holds the `(B, T, V)` logits.

        With `repack` `(R, W)`, see `Batch`, only those positions are computed, as R rows of W, and
        `segments` describes these rows.
        """
        if repack is not None:
            ids, targets = ids.flatten()[repack], targets.flatten()[repack]
        hidden = self.hidden(ids, segments).flatten(0, 1)
        return cross_entropy_sum(
            hidden, self.head_weight, targets.flatten(), self.embedding.padding_idx, self.chunk_loss
        )

    def score(
        self,
        ids: Tensor,
        targets: Tensor,
        segments: Segments | None = None,
        repack: Tensor | None = None,
    ) -> Scores:
        """Per-token negative log-likelihood and hits, each `(B, T)`, without gradients.

        `segments` and `repack` are those of `loss`; with them too the result has the shape of
        `targets`.
        """
        shape = targets.shape
        if repack is not None:
            ids, targets = ids.flatten()[repack], targets.flatten()[repack]
        hidden = self.hidden(ids, segments).flatten(0, 1)
        scores = score(hidden, self.head_weight, targets.flatten(), self.embedding.padding_idx)
        if repack is not None:  # its padding points to one padding position, whose score is 0
            scores = Scores(
                *(x.new_zeros(shape.numel()).scatter(0, repack.flatten(), x) for x in scores)
            )
        return Scores(*(x.view(shape) for x in scores))
