"""Evaluation metrics: loss, perplexity, accuracy and bits per byte, exact on any number of ranks.

Scores (`model/loss.py`) are added up over batches and ranks and divided at the end. Sums are kept
separately for each source (file), so that a confidence interval over files can be given.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Module
from torchmetrics import Metric

from lightning_embed.library_internals import metric_defaults
from lightning_embed.model.loss import Scores

GROUPS = 1024  # sums kept; with more sources than that, some are added up together


class Evaluation(NamedTuple):
    """What an evaluation found, over all ranks."""

    loss: float  # nats a token
    perplexity: float
    accuracy: float
    bits_per_byte: float
    nll: Tensor  # (GROUPS,) summed negative log-likelihood of each source
    n_bytes: Tensor  # (GROUPS,) UTF-8 bytes of each source

    @property
    def scalars(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in SCALARS}


# What is logged, below "val/" or "test/".
SCALARS = tuple(name for name, kind in Evaluation.__annotations__.items() if kind is float)
HIGHER_IS_BETTER = ("accuracy",)


class LanguageModelMetrics(Metric):
    """Add scores batch by batch; `compute` divides sums over everything seen on all ranks.

    Sums are float64 where the device has it: a million tokens in float32 would lose digits.
    """

    full_state_update = False
    nll: Tensor
    correct: Tensor
    tokens: Tensor
    n_bytes: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("nll", "correct", "tokens", "n_bytes"):
            self.add_state(name, torch.zeros(GROUPS, dtype=torch.float64), dist_reduce_fx="sum")

    def _apply(self, fn: Callable[..., Any], exclude_state: Sequence[str] = "") -> Module:
        """Move to another device but stay float64: bf16-true converts every module."""
        this = super()._apply(fn, exclude_state)
        defaults = metric_defaults(self)
        for name in defaults:
            setattr(self, name, getattr(self, name).double())
            defaults[name] = defaults[name].double()
        return this

    def update(self, scores: Scores, real: Tensor, group: Tensor, n_bytes: Tensor) -> None:
        """Add a batch.

        Args:
            scores: `(B, T)` each.
            real: `(B, T)` bool, where there is a target.
            group: `(B,)` source number of each row.
            n_bytes: `(B,)` UTF-8 bytes of each row's targets.
        """
        index = group % GROUPS
        rows = {
            "nll": scores.nll.sum(dim=1, dtype=torch.float64),
            "correct": scores.correct.sum(dim=1),
            "tokens": real.sum(dim=1),
            "n_bytes": n_bytes,
        }
        for name, values in rows.items():
            getattr(self, name).index_add_(0, index, values.double())

    def compute(self) -> Evaluation:
        """Divide the sums; everything is NaN before the first token."""
        tokens = self.tokens.sum()
        loss = self.nll.sum() / tokens
        return Evaluation(
            float(loss),
            float(loss.exp()),
            float(self.correct.sum() / tokens),
            float(self.nll.sum() / math.log(2) / self.n_bytes.sum()),
            self.nll.clone(),
            self.n_bytes.clone(),
        )


def bits_per_byte_interval(
    nll: Tensor, n_bytes: Tensor, *, coverage: float = 0.95, draws: int = 10_000
) -> tuple[float, float]:
    """A bootstrap confidence interval of bits per byte, with sources (files) resampled.

    Args:
        nll: `(groups,)` summed negative log-likelihood of each source, nats.
        n_bytes: `(groups,)` its UTF-8 bytes; sources without bytes are left out.
        coverage: of the interval, as a probability.
        draws: resamples, from a fixed seed.
    """
    used = n_bytes > 0
    nll, n_bytes = nll[used].double().cpu(), n_bytes[used].double().cpu()
    generator = torch.Generator().manual_seed(0)
    picks = torch.randint(len(nll), (draws, len(nll)), generator=generator)
    values = nll[picks].sum(dim=1) / math.log(2) / n_bytes[picks].sum(dim=1)
    edge = (1 - coverage) / 2
    low, high = torch.quantile(values, torch.tensor([edge, 1 - edge], dtype=torch.float64))
    return float(low), float(high)
