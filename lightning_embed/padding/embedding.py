"""`TokenEmbedding`: an `nn.Embedding` whose padding row is zero and stays zero.

The row keeps the bits of +0 through initialisation, `apply`, the meta device, loading and a tied
output head. `guard.py` checks it while training; the data path checks ids (`data/batch.py`).

The starting point was the `TokenEmbedding` of hyunwoongko/transformer (Apache-2.0), which is
`nn.Embedding(vocab_size, d_model, padding_idx=1)`; nothing of its text is left.

Shapes: V words, D features, `...` any leading shape.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any, Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from lightning_embed.errors import UserError
from lightning_embed.padding.padded import row_of
from lightning_embed.special_tokens import PAD_ID

InitName = Literal[
    "normal",
    "uniform",
    "torch",
    "xavier_uniform",
    "xavier_normal",
    "kaiming_uniform",
    "kaiming_normal",
]


def _initialise(weight: Tensor, init: str) -> None:
    std = weight.shape[1] ** -0.5
    match init:
        case "normal":
            nn.init.normal_(weight, std=std)
        case "uniform":
            nn.init.uniform_(weight, -std, std)
        case "torch":  # what nn.Embedding really does
            nn.init.normal_(weight)
        case "xavier_uniform":
            nn.init.xavier_uniform_(weight)
        case "xavier_normal":
            nn.init.xavier_normal_(weight)
        case "kaiming_uniform":
            nn.init.kaiming_uniform_(weight)
        case "kaiming_normal":
            nn.init.kaiming_normal_(weight)


def protect_padding_row(weight: nn.Parameter, padding_idx: int = PAD_ID) -> RemovableHandle:
    """Zero the padding row's gradient of a matrix that is also the weight of another output head.

    For example of an `nn.Linear` tied to the embedding's weight. Call it once; it writes one row in
    each backward pass. Under FSDP2 call it after sharding, which makes a new parameter. Returns the
    hook's handle.
    """

    def clear(parameter: Tensor) -> None:
        row = None if parameter.grad is None else row_of(parameter.grad, padding_idx)
        if row is not None:
            row.fill_(0.0)

    return weight.register_post_accumulate_grad_hook(clear)


@torch.no_grad()
def clear_padding_moments(optimizer: Optimizer, weight: Tensor, padding_idx: int = PAD_ID) -> None:
    """Zero the row in every optimizer moment, which would otherwise move a zeroed row again."""
    for moment in optimizer.state.get(weight, {}).values():
        if isinstance(moment, Tensor) and moment.shape == weight.shape:
            row = row_of(moment, padding_idx)
            if row is not None:
                row.fill_(0.0)


class TokenEmbedding(nn.Embedding):
    """Ids `(...)` in, vectors `(..., D)` out; the padding id gives a zero vector.

    A drop-in for `nn.Embedding(vocab_size, d_model, padding_idx=1)`, with the same state-dict key
    and no parametrisation. What differs: the row stays zero through `model.apply(init_fn)`,
    `to_empty()` + `reset_parameters()` and loading; `logits` is a tied head that cannot train it.

    Args:
        vocab_size: number of ids, V.
        d_model: features of a vector, D.
        padding_idx: the id whose vector is zero; negative counts from the end; None guards nothing.
        scale: multiply the output by sqrt(D), as in "Attention Is All You Need", section 3.4.
        init: "normal" has standard deviation D**-0.5, "uniform" lies in ±D**-0.5, "torch" is
            N(0, 1), the others are those of `torch.nn.init`.

    Raises:
        UserError: unknown `init`, sizes below 1, `padding_idx` outside the vocabulary.
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        padding_idx: int | None = PAD_ID,
        *,
        scale: bool = False,
        init: InitName = "normal",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if init not in get_args(InitName):
            raise UserError(f"init is {init!r}; choose one of {', '.join(get_args(InitName))}")
        if vocab_size < 1 or d_model < 1:
            raise UserError(
                f"vocab_size and d_model must be at least 1, not {vocab_size} and {d_model}"
            )
        if padding_idx is not None and not -vocab_size <= padding_idx < vocab_size:
            raise UserError(f"padding_idx {padding_idx} is outside a vocabulary of {vocab_size}")
        # With a weight given, nn.Embedding does not initialise one before `init` is known.
        weight = torch.empty(vocab_size, d_model, device=device, dtype=dtype)
        super().__init__(vocab_size, d_model, padding_idx, _weight=weight)
        self.scale = scale
        self.init = init
        self.reset_parameters()

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        weight: Tensor,
        *,
        d_model: int | None = None,
        padding_idx: int | None = PAD_ID,
        freeze: bool = True,
        scale: bool = False,
    ) -> Self:
        """A `TokenEmbedding` holding a copy of `weight` `(V, D)`, padding row zeroed.

        Raises:
            UserError: `weight` is not two-dimensional, or its width is not `d_model`.
        """
        if weight.dim() != 2:
            raise UserError(
                f"weight must have shape (vocab_size, d_model), not {tuple(weight.shape)}"
            )
        if d_model is not None and weight.shape[1] != d_model:
            raise UserError(f"weight has width {weight.shape[1]}, but d_model is {d_model}")
        vocab_size, width = weight.shape
        embedding = cls(
            vocab_size,
            width,
            padding_idx,
            scale=scale,
            device=weight.device,
            dtype=weight.dtype,
        )
        with torch.no_grad():
            embedding.weight.copy_(weight)
        embedding.zero_padding_()
        embedding.weight.requires_grad_(not freeze)
        return embedding

    @torch.no_grad()
    def reset_parameters(self) -> None:
        if hasattr(self, "init"):  # absent while nn.Embedding itself is being constructed
            _initialise(self.weight, self.init)
            self.zero_padding_()

    @torch.no_grad()
    def zero_padding_(self) -> None:
        """Write +0 into the padding row. Never multiplies: -0 and NaN would survive a product."""
        if self.padding_idx is None:
            return
        row = row_of(self.weight, self.padding_idx)
        if row is not None:  # None on a rank whose shard does not hold it
            row.fill_(0.0)

    def apply(self, fn: Callable[[nn.Module], None]) -> Self:
        """Like `nn.Module.apply`; an `fn` that re-initialises does not reach the padding row.

        A parent's `apply` comes through here, so `model.apply(init_fn)` is safe as well.
        """
        super().apply(fn)
        self.zero_padding_()
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        loaded = state_dict.get(f"{prefix}weight")
        row = None
        if loaded is not None and self.padding_idx is not None and not loaded.is_meta:
            row = row_of(loaded, self.padding_idx) if loaded.shape == self.weight.shape else None
        if row is not None and bool(row.count_nonzero()):
            norm = float(row.float().norm())
            warnings.warn(
                f"the padding row of {prefix}weight had norm {norm:.3g} in the loaded state; it is"
                " zero now (clear its optimizer moments too: clear_padding_moments)",
                stacklevel=2,
            )
        self.zero_padding_()

    @torch.no_grad()
    def resize(self, vocab_size: int) -> None:
        """Grow or shrink the vocabulary; other rows keep their values, new ones are initialised.

        `weight` becomes a new parameter: tie heads and make optimizers anew.

        Raises:
            UserError: the padding row would be cut off.
        """
        if vocab_size < 1 or (self.padding_idx is not None and vocab_size <= self.padding_idx):
            raise UserError(
                f"a vocabulary of {vocab_size} has no row for padding_idx {self.padding_idx}"
            )
        old = self.weight
        self.weight = nn.Parameter(
            old.new_empty(vocab_size, self.embedding_dim), requires_grad=old.requires_grad
        )
        self.num_embeddings = vocab_size
        self.reset_parameters()
        kept = min(vocab_size, old.shape[0])
        self.weight[:kept] = old[:kept]
        self.zero_padding_()

    def forward(self, ids: Tensor) -> Tensor:
        """Ids `(...)` to vectors `(..., D)`, in the weight's dtype.

        Raises:
            IndexError: on CPU, an id outside the vocabulary. On a GPU the check would wait for the
                device, so there only the data path checks (`check_ids` in `data/batch.py`);
                compiled code raises a RuntimeError of its own.
        """
        # The lookup itself refuses ids. Reading their values before it would cost a pass and is not
        # possible under vmap and FakeTensorMode.
        try:
            vectors = F.embedding(ids, self.weight, self.padding_idx)
        except IndexError as error:
            raise IndexError(self._which_id_is_outside(ids)) from error
        return vectors * math.sqrt(self.embedding_dim) if self.scale else vectors

    def _which_id_is_outside(self, ids: Tensor) -> str:
        """The error's line, once an id is known to be outside."""
        try:
            outside = f"id {int(ids[(ids < 0) | (ids >= self.num_embeddings)][0])}"
        except RuntimeError:  # under vmap, where values cannot be read
            outside = "an id"
        return (
            f"{outside} is outside the vocabulary of {self.num_embeddings}"
            f" (ids 0 to {self.num_embeddings - 1})"
        )

    def logits(self, hidden: Tensor) -> Tensor:
        """Tied output head: `(..., D)` to `(..., V)` with the same matrix.

        The padding logit is minus infinity, so padding is never predicted and its row's gradient
        through this head is exactly zero.
        """
        logits = F.linear(hidden, self.weight)
        if self.padding_idx is None:
            return logits
        words = torch.arange(self.num_embeddings, device=hidden.device)
        return logits.masked_fill(words == self.padding_idx, float("-inf"))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scale={self.scale}, init={self.init!r}"
