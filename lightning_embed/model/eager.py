"""RMS norm and rotation for a CPU without `torch.compile`, in the fewest passes over memory.

Written with torch's own operations each is a dozen passes, forward and backward, each of which
takes as long as it takes to read and write the tensor. Compiled code fuses them, so it needs none
of this; results are the same up to rounding.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def written_out(x: Tensor) -> bool:
    """Whether these forms are the faster ones for `x`; they are exact enough from float32 on."""
    wide = x.dtype in (torch.float32, torch.float64)
    return wide and x.device.type == "cpu" and not torch.compiler.is_compiling()


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = size.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        normed = x * scale
        ctx.save_for_backward(normed, scale, weight)
        return normed * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        normed, scale, weight = ctx.saved_tensors
        along = grads[0] * normed
        grad_weight = along.flatten(0, -2).sum(dim=0)
        shrink = (along @ weight).unsqueeze(-1)
        grad = (grads[0] * weight).addcmul_(normed, shrink, value=-1 / normed.shape[-1])
        return grad.mul_(scale), grad_weight, None


class RMSNorm(nn.RMSNorm):
    """`nn.RMSNorm`. Also a class of its own because `torch.compile` does not compile torch's own
    modules."""

    def forward(self, x: Tensor) -> Tensor:
        if self.weight is None or self.eps is None or not written_out(x):
            return super().forward(x)
        normed: Tensor = _Normalize.apply(x, self.weight, self.eps)
        return normed


def norm_of_one(norm: nn.Module, x: Tensor) -> Tensor:
    """A norm of one position a row, by torch's own operation: fewer calls, whose own time is most
    of it there. Any other module is applied as it is."""
    if isinstance(norm, nn.RMSNorm):
        return F.rms_norm(x, norm.normalized_shape, norm.weight, norm.eps)
    normed: Tensor = norm(x)
    return normed


def _turn(x: Tensor, cos: Tensor, sin: Tensor, sign: float) -> Tensor:
    turned = x.new_empty(x.shape)
    (left, right), (new_left, new_right) = x.chunk(2, dim=-1), turned.chunk(2, dim=-1)
    torch.mul(left, cos, out=new_left).addcmul_(right, sin, value=-sign)
    torch.mul(right, cos, out=new_right).addcmul_(left, sin, value=sign)
    return turned


class Rotation(torch.autograd.Function):
    """Pairs (c, c + C/2) of `x` `(B, H, T, C)` turned by angles of cosine and sine
    `(B, 1, T, C/2)`; backward turns the gradient the other way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin, 1.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(grads[0], cos, sin, -1.0), None, None
