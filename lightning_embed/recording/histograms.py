"""Histograms of a network for TensorBoard: weights and gradients of each block, norms of the
embedding's rows with the padding row apart.

Counted on the network's own device, so that a GPU sends 64 numbers for each.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_embed.model.decoder import DecoderLM

BINS = 64


class Histogram(NamedTuple):
    """How many of N values lie between each two of `BINS` + 1 equally spaced edges."""

    edges: list[float]
    counts: list[float]
    n: int
    total: float  # sum of the values
    squares: float  # sum of their squares


@torch.no_grad()
def histogram(tensors: Sequence[Tensor]) -> Histogram:
    """Of all values of some tensors; those that are not finite are left out."""
    values = [t.detach().float().flatten() for t in tensors]
    values = [v[v.isfinite()] for v in values]
    values = [v for v in values if v.numel()]
    if not values:
        return Histogram([0.0, 0.0], [0.0], 0, 0.0, 0.0)
    low = float(torch.stack([v.min() for v in values]).min())
    high = float(torch.stack([v.max() for v in values]).max())
    if low == high:  # TensorBoard draws nothing of no width
        low, high = low - 1e-6, high + 1e-6
    counts = torch.stack([torch.histc(v, BINS, low, high) for v in values]).sum(dim=0)
    return Histogram(
        torch.linspace(low, high, BINS + 1, dtype=torch.float64).tolist(),
        counts.tolist(),
        sum(v.numel() for v in values),
        float(torch.stack([v.sum() for v in values]).sum()),
        float(torch.stack([v.square().sum() for v in values]).sum()),
    )


def of_weights(network: DecoderLM) -> Iterator[tuple[str, Histogram]]:
    """By their tags: groups that TensorBoard sorts behind all figures."""
    for name, parameters in _parts(network):
        yield f"weights/{name}", histogram(parameters)
    tokens, padding = row_norms(network)
    yield "weights_row_norm/tokens", histogram([tokens])
    yield "weights_row_norm/padding", histogram([padding])


def of_gradients(network: DecoderLM) -> Iterator[tuple[str, Histogram]]:
    """By their tags; of parts that have gradients, as all that are trained do after a step."""
    for name, parameters in _parts(network):
        gradients = [p.grad for p in parameters if p.grad is not None]
        if gradients:
            yield f"weights_gradient/{name}", histogram(gradients)


def _parts(network: DecoderLM) -> Iterator[tuple[str, list[Tensor]]]:
    for number, block in enumerate(network.layers()):
        yield f"block {number}", list(block.parameters())
    yield "embedding", [network.embedding.weight]
    if network.head is not None:
        yield "head", [network.head.weight]


@torch.no_grad()
def row_norms(network: DecoderLM) -> tuple[Tensor, Tensor]:
    """Norms `(V - 1,)` of the embedding's rows, and `(1,)` of its padding row."""
    norms = network.embedding.weight.float().norm(dim=1)
    is_padding = torch.arange(len(norms), device=norms.device) == network.embedding.padding_idx
    return norms[~is_padding], norms[is_padding]
