"""Finds padded embeddings in any module, tied and nested ones included, and their padding rows.

Of a matrix sharded by FSDP2 it gives the row on the rank that holds it, and None on the others.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn

from lightning_embed.library_internals import COMPILED_PREFIX, shard_extent, sparse_parts

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


class PaddedEmbedding(NamedTuple):
    """An embedding, its weight's name, and the id whose vector is for padding."""

    name: str
    module: nn.Module
    padding_idx: int

    @property
    def weight(self) -> Tensor:
        """`(V, D)`; looked up each time, because a resize replaces it."""
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        return weight

    def row(self) -> Tensor | None:
        """A view of the padding row `(D,)`, or None on a rank that does not hold it."""
        return row_of(self.weight, self.padding_idx)

    def gradient_row(self) -> Tensor | None:
        """The row's gradient, or None where there is none; waits for no device."""
        grad = self.weight.grad
        if grad is None:
            return None
        if grad.is_sparse:
            indices, values = sparse_parts(grad)
            hits = (indices[0] == self.padding_idx).unsqueeze(1)
            return values.where(hits, 0.0).sum(dim=0)
        return row_of(grad, self.padding_idx)


def is_sharded(weight: Tensor) -> TypeGuard[DTensor]:
    """Whether it is a `DTensor`. Their module takes a second to import, so it is not imported to
    ask: without it there is none."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(weight, module.DTensor)


@torch.no_grad()
def row_of(weight: Tensor, index: int) -> Tensor | None:
    """Row `index` of a matrix; of a sharded one, this rank's part of it, or None."""
    weight = weight.detach()
    if not is_sharded(weight):
        return weight[index]
    from torch.distributed.tensor import Shard

    local = weight.to_local()
    for dim, placement in enumerate(weight.placements):
        if isinstance(placement, Shard) and placement.dim == 0:
            mesh = weight.device_mesh
            size, offset = shard_extent(
                placement, weight.shape[0], mesh.size(dim), mesh.get_local_rank(dim)
            )
            index -= offset
            if not 0 <= index < size:
                return None
    return local[index]


def plain_name(key: str) -> str:
    """A state dict's key without the prefix of `torch.compile(module)`."""
    return key.replace(COMPILED_PREFIX, "")


def find_padded_embeddings(module: nn.Module) -> list[PaddedEmbedding]:
    """Every `nn.Embedding` and `nn.EmbeddingBag` with a padding index; a shared weight once."""
    found: dict[tuple[int, int], PaddedEmbedding] = {}
    for name, child in module.named_modules():
        if isinstance(child, nn.Embedding | nn.EmbeddingBag) and child.padding_idx is not None:
            full_name = plain_name(f"{name}.weight" if name else "weight")
            embedding = PaddedEmbedding(full_name, child, child.padding_idx)
            found.setdefault((id(child.weight), child.padding_idx), embedding)
    return list(found.values())
