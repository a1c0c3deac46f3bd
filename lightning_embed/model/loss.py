"""Cross-entropy over real targets, summed, without ever holding all logits.

Targets of `IGNORE_INDEX` count for nothing and padding has probability 0. Rows are computed in
chunks. The caller divides the sum by the real targets of the whole global batch, which only it
knows (`lightning_module.py`).

Shapes: N positions, D features, V words.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_embed.special_tokens import IGNORE_INDEX

ChunkLoss = Callable[[Tensor, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor, Tensor]]

# Logits held at once (`benchmarks/loss.py`). Fewer take longer, because the head's gradient, as
# large as the head, is accumulated once a chunk; more take memory. Eager, where every operation is
# a pass over them in float32, they should fit a CPU's cache. The GPU's number is an estimate.
MAX_LOGITS_COMPILED, MAX_LOGITS_EAGER, MAX_LOGITS_ON_GPU = 3 * 2**22, 2**21, 2**26


def padding_bias(weight: Tensor, padding_idx: int | None) -> Tensor | None:
    """A head's bias `(V,)` of minus infinity at padding and 0 elsewhere, in the weight's dtype."""
    if padding_idx is None:
        return None
    words = torch.arange(weight.shape[0], device=weight.device)
    zeros = torch.zeros_like(words, dtype=weight.dtype)
    return zeros.masked_fill(words == padding_idx, float("-inf"))


def rows_at_once(weight: Tensor, compiled: bool) -> int:
    """Rows of a chunk of logits for the head `weight`."""
    elements = MAX_LOGITS_COMPILED if compiled else MAX_LOGITS_EAGER
    elements = MAX_LOGITS_ON_GPU if weight.is_cuda else elements
    return max(1, elements // len(weight))


def _chunks(n: int, rows: int) -> list[slice]:
    return [slice(start, min(start + rows, n)) for start in range(0, n, rows)]


def chunk_loss(
    hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Summed cross-entropy of `hidden @ weight.T + bias`, and its gradients to both.

    Between the three matrix products stand as few passes over the chunk as can be without a
    compiler: in place, exponentials computed once, the targets' one-hot never made, and rows
    without a target zero before the first product instead of in every pass.
    """
    accumulate_dtype = torch.promote_types(hidden.dtype, torch.float32)
    real = (targets != IGNORE_INDEX).unsqueeze(1)
    picked = targets.clamp(min=0).unsqueeze(1)
    hidden = hidden.where(real, 0.0)
    logits = F.linear(hidden, weight).to(accumulate_dtype)
    if bias is not None:
        logits.add_(bias)
    top = logits.amax(dim=1, keepdim=True)
    wanted = logits.gather(1, picked)
    powers = logits.sub_(top).exp_()
    z = powers.sum(dim=1, keepdim=True)
    loss = (z.log() + top - wanted).where(real, 0.0).sum()
    probability = powers.mul_(1 / z)
    error = probability.gather(1, picked) - 1
    grad = probability.to(hidden.dtype).scatter_(1, picked, error.to(hidden.dtype))
    return loss, (grad @ weight).where(real, 0.0), grad.T @ hidden


def chunk_loss_to_compile(
    hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """`chunk_loss` for the compiler, which fuses this into fewer passes than the other form.

    The bias is added in one of them (`F.linear` would first copy it to every row), and
    exponentials, which cost most, are computed once.
    """
    accumulate_dtype = torch.promote_types(hidden.dtype, torch.float32)
    logits = F.linear(hidden, weight).to(accumulate_dtype)
    if bias is not None:
        logits = logits + bias
    real = (targets != IGNORE_INDEX).unsqueeze(1)
    picked = targets.clamp(min=0).unsqueeze(1)
    top = logits.amax(dim=1, keepdim=True)
    powers = (logits - top).exp()
    z = powers.sum(dim=1, keepdim=True)
    loss = (z.log() + top - logits.gather(1, picked)).where(real, 0.0).sum()
    words = torch.arange(len(weight), device=hidden.device)
    grad = (powers * (1 / z) - (words == picked).to(accumulate_dtype)).where(real, 0.0)
    grad = grad.to(hidden.dtype)
    return loss, grad @ weight, grad.T @ hidden


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Computes gradients in forward, chunk by chunk, so that no logits are kept for backward."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        padding_idx: int | None,
        step: ChunkLoss,
    ) -> Tensor:
        dtype = _compute_dtype(hidden)
        accumulate_dtype = torch.promote_types(dtype, torch.float32)
        ctx.dtypes = hidden.dtype, weight.dtype
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        bias = padding_bias(weight, padding_idx)
        total = torch.zeros((), device=hidden.device, dtype=accumulate_dtype)
        # Both gradients are kept in float32, so that the products' rounding is the only one.
        grad_hidden = torch.empty_like(hidden, dtype=accumulate_dtype)
        grad_weight: Tensor | None = None
        for rows in _chunks(len(targets), rows_at_once(weight, step is not chunk_loss)):
            with torch.autocast(hidden.device.type, enabled=False):
                loss, grad_hidden[rows], grad = step(hidden[rows], weight, targets[rows], bias)
            total += loss
            if grad_weight is None:
                grad_weight = grad.to(accumulate_dtype)
            else:
                grad_weight.add_(grad)
            del grad  # as large as the head: freed before the next one is made
        # An infinite loss can have finite gradients; NaN keeps them from being taken for a step.
        one_or_nan = torch.where(total.isfinite(), 1.0, torch.nan).to(accumulate_dtype)
        if grad_weight is None:  # no position at all
            grad_weight = torch.zeros_like(weight, dtype=accumulate_dtype)
        ctx.save_for_backward(grad_hidden, grad_weight, one_or_nan)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_hidden, grad_weight, one_or_nan = ctx.saved_tensors
        scale, (dtype, weight_dtype) = grads[0] * one_or_nan, ctx.dtypes
        hidden, weight = (grad_hidden * scale).to(dtype), (grad_weight * scale).to(weight_dtype)
        return hidden, weight, None, None, None


def _compute_dtype(hidden: Tensor) -> torch.dtype:
    """The dtype autocast would multiply in; it does not reach into a custom Function by itself."""
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


def cross_entropy_sum(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    padding_idx: int | None,
    step: ChunkLoss = chunk_loss,
) -> Tensor:
    """Sum of -log p(target) over real targets, a float32 scalar (float64 for float64 input).

    Args:
        hidden: `(N, D)`.
        weight: the output head `(V, D)`.
        targets: `(N,)` word ids, or `IGNORE_INDEX` where there is nothing to predict.
        padding_idx: the word that is never predicted: probability and gradient exactly 0.
        step: `chunk_loss`, or `chunk_loss_to_compile` compiled.

    `F.linear_cross_entropy` of torch 2.13 is as fast and takes less memory, but under bfloat16 its
    sum is bfloat16, three digits, and it breaks a compiled graph (`benchmarks/loss.py`).
    """
    loss: Tensor = _ChunkedCrossEntropy.apply(hidden, weight, targets, padding_idx, step)
    return loss


class Scores(NamedTuple):
    """Per position, 0 where there is no target: -log p(target) in float32, and whether it was the
    most likely word."""

    nll: Tensor
    correct: Tensor


@torch.no_grad()
def score(hidden: Tensor, weight: Tensor, targets: Tensor, padding_idx: int | None) -> Scores:
    """Evaluate `hidden` `(N, D)` against `targets` `(N,)` chunk by chunk; results are `(N,)`."""
    dtype = _compute_dtype(hidden)
    hidden, weight = hidden.to(dtype), weight.to(dtype)
    bias = padding_bias(weight, padding_idx)
    nll = torch.zeros(len(targets), device=hidden.device, dtype=torch.float32)
    correct = torch.zeros(len(targets), device=hidden.device, dtype=torch.bool)
    with torch.autocast(hidden.device.type, enabled=False):
        for rows in _chunks(len(targets), rows_at_once(weight, compiled=False)):
            logits = F.linear(hidden[rows], weight, bias).float()
            nll[rows] = F.cross_entropy(
                logits, targets[rows], ignore_index=IGNORE_INDEX, reduction="none"
            )
            correct[rows] = logits.argmax(dim=1) == targets[rows]
    return Scores(nll, correct)
