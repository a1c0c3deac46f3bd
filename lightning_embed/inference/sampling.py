"""Which id comes next: temperature, the most likely ids, a penalty on repetition, and the draw.

A row's draws follow from the seed and the row's own number alone, not from the rows beside it.

Shapes: B rows, V words.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_embed.errors import UserError
from lightning_embed.inference.arguments import require_number, require_whole

COLDEST = 1e-30  # below, a reciprocal may not be finite; no draw differs
BELOW_ONE = 1 - 2**-52  # times a number below 1: no product with it rounds up to the whole


@dataclass(frozen=True)
class Sampling:
    """How ids are drawn.

    Attributes:
        temperature: 0 takes the most likely id, higher is more varied; finite.
        top_k: only the k most likely ids; 0 or None for all.
        top_p: only the most likely ids that together reach this probability.
        repetition_penalty: above 1, an id that stands in the text already becomes less likely: its
            logit is divided by this, or multiplied where it is negative (Keskar et al.,
            arXiv:1909.05858). From 1e-6 to 1e9, so that logits stay finite.
        seed: of the draws.

    Raises:
        UserError: a value outside its limits.
        TypeError: a value of another type.
    """

    temperature: float = 0.8
    top_k: int | None = 50
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        require_number("--temperature", self.temperature, at_least=0, below=math.inf)
        if self.top_k is not None:
            require_whole("--top_k", self.top_k, at_least=0)
        require_number("--top_p", self.top_p, above=0, at_most=1)
        penalty = self.repetition_penalty
        require_number("--repetition_penalty", penalty, at_least=1e-6, at_most=1e9)
        require_whole("--seed", self.seed)

    def draws(self, row: int) -> random.Random:
        """The source of a row's draws; the same on every device."""
        return random.Random(f"{self.seed} {row}")


def pick(logits: Tensor, sampling: Sampling, draws: Sequence[random.Random]) -> Tensor:
    """One id for each row of `logits` `(B, V)`, with one number of each row's source.

    Raises:
        UserError: a row's largest logit is not finite, or one is no number.
    """
    largest, most_likely = logits.max(dim=-1, keepdim=True)
    if not largest.isfinite().all():
        raise UserError(
            "the network's logits are not finite: its weights are damaged, or its training diverged"
        )
    if sampling.temperature == 0:
        return most_likely.squeeze(1)
    order: Tensor | None = None
    if sampling.top_k and sampling.top_k < logits.shape[-1]:
        logits, order = logits.topk(sampling.top_k, dim=-1)
    elif sampling.top_p < 1:
        logits, order = logits.sort(dim=-1, descending=True)
    # 0 for the most likely id, however low the temperature
    scaled = (logits - largest).double() / max(sampling.temperature, COLDEST)
    probabilities = scaled.softmax(dim=-1)
    reached = probabilities.cumsum(dim=-1)
    if sampling.top_p < 1:
        beyond = reached - probabilities >= sampling.top_p  # the first id always stays
        reached = probabilities.masked_fill(beyond, 0.0).cumsum(dim=-1)
    # The first id whose cumulative probability is above the draw: never one of probability 0.
    drawn = [[source.random() * BELOW_ONE] for source in draws]
    places = torch.tensor(drawn, dtype=torch.float64, device=logits.device) * reached[:, -1:]
    picks = torch.searchsorted(reached, places, right=True)
    return (picks if order is None else order.gather(1, picks)).squeeze(1)


def penalise(logits: Tensor, present: Tensor, penalty: float) -> Tensor:
    """Logits `(B, V)` with those of ids that are `present` `(B, V)` made less likely."""
    weaker = torch.where(logits > 0, logits / penalty, logits * penalty)
    return logits.where(~present, weaker)
