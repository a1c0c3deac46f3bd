"""Evaluation metrics: loss, perplexity, accuracy and bits per byte, exact on any number of ranks.

Scores (`model/loss.py`) are added up over batches and ranks and divided at the end. Sums are kept
separately for each source (file), so that a confidence interval over files can be given; `test`
keeps them for each window and by position in it (`WindowSums`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
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
    by_name: Mapping[str, Mapping[str, float]] = {}  # figures of each source of a mixture

    @property
    def scalars(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in SCALARS}


# What is logged, below "val/" or "test/".
SCALARS = tuple(name for name, kind in Evaluation.__annotations__.items() if kind is float)
HIGHER_IS_BETTER = ("accuracy",)


class _Sums(Metric):
    """Sums in float64 where the device has it: a million tokens in float32 would lose digits."""

    full_state_update = False

    def _apply(self, fn: Callable[..., Any], exclude_state: Sequence[str] = "") -> Module:
        """Move to another device but stay float64: bf16-true converts every module."""
        this = super()._apply(fn, exclude_state)
        defaults = metric_defaults(self)
        for name in defaults:
            setattr(self, name, getattr(self, name).double())
            defaults[name] = defaults[name].double()
        return this


class _SourceSums(_Sums):
    """Adds up scores for each of `size` sources."""

    nll: Tensor
    correct: Tensor
    tokens: Tensor
    n_bytes: Tensor

    def __init__(self, size: int = GROUPS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("nll", "correct", "tokens", "n_bytes"):
            self.add_state(name, torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, scores: Scores, real: Tensor, group: Tensor, n_bytes: Tensor) -> None:
        """Add a batch.

        Args:
            scores: `(B, T)` each.
            real: `(B, T)` bool, where there is a target.
            group: `(B,)` source number of each row.
            n_bytes: `(B,)` UTF-8 bytes of each row's targets.
        """
        index = group % len(self.nll)
        rows = {
            "nll": scores.nll.sum(dim=1, dtype=torch.float64),
            "correct": scores.correct.sum(dim=1),
            "tokens": real.sum(dim=1),
            "n_bytes": n_bytes,
        }
        for name, values in rows.items():
            getattr(self, name).index_add_(0, index, values.double())


class LanguageModelMetrics(_SourceSums):
    """Add scores batch by batch; `compute` divides sums over everything seen on all ranks."""

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


class NamedSums(_SourceSums):
    """Adds up scores for each named source of a mixture.

    Args:
        names: of the sources.
        number: `(files,)` which of them each file belongs to.
    """

    number: Tensor

    def __init__(self, names: Sequence[str], number: np.ndarray, **kwargs: Any) -> None:
        super().__init__(len(names), **kwargs)
        self.names = list(names)
        self.register_buffer("number", torch.from_numpy(number), persistent=False)

    def update(self, scores: Scores, real: Tensor, group: Tensor, n_bytes: Tensor) -> None:
        super().update(scores, real, self.number[group], n_bytes)

    def compute(self) -> dict[str, dict[str, float]]:
        """Loss (nats a token) and bits per byte of each source that was evaluated."""
        columns = (x.tolist() for x in (self.nll, self.tokens, self.n_bytes))
        return {
            name: {"loss": nll / tokens, "bits_per_byte": nll / math.log(2) / n_bytes}
            for name, nll, tokens, n_bytes in zip(self.names, *columns, strict=True)
            if tokens
        }


class WindowScores(NamedTuple):
    """What was found of N windows, by position in the window, in K ranges of positions."""

    nll: np.ndarray  # (N, K) summed negative log-likelihood, nats
    correct: np.ndarray  # (N, K) targets that were the most likely token
    tokens: np.ndarray  # (N, K) targets; 0 in windows that were not evaluated
    n_bytes: np.ndarray  # (N,) UTF-8 bytes of the targets


def position_ranges(max_length: int) -> list[tuple[int, int]]:
    """Ranges of positions, begin and end: (0, 8), (8, 16), (16, 32), ..., to `max_length`."""
    begins = [0, *(2**power for power in range(3, (max_length - 1).bit_length()))]
    return list(pairwise([*begins, max_length]))


class WindowSums(_Sums):
    """Adds up scores of each window of an evaluation, in which a row is one window.

    Args:
        windows: how many there are, over all ranks.
        max_length: positions in the longest.
    """

    nll: Tensor
    correct: Tensor
    tokens: Tensor
    n_bytes: Tensor

    def __init__(self, windows: int, max_length: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ranges = position_ranges(max_length)
        zeros = torch.zeros(windows, len(self.ranges), dtype=torch.float64)
        for name in ("nll", "correct", "tokens"):
            self.add_state(name, zeros.clone(), dist_reduce_fx="sum")
        self.add_state("n_bytes", zeros[:, 0].clone(), dist_reduce_fx="sum")

    def update(self, scores: Scores, real: Tensor, window: Tensor, n_bytes: Tensor) -> None:
        """Add a batch.

        Args:
            scores: `(B, T)` each, 0 where there is no target.
            real: `(B, T)` bool, where there is a target.
            window: `(B,)` number of each row's window; negative in rows without.
            n_bytes: `(B,)` UTF-8 bytes of each row's targets.
        """
        index = window.clamp(min=0)  # rows without a window add zeros there
        for name, values in (("nll", scores.nll), ("correct", scores.correct), ("tokens", real)):
            sums = [values[:, a:b].sum(dim=1, dtype=torch.float64) for a, b in self.ranges]
            getattr(self, name).index_add_(0, index, torch.stack(sums, dim=1))
        self.n_bytes.index_add_(0, index, n_bytes.double())

    def compute(self) -> WindowScores:
        return WindowScores(*(getattr(self, x).cpu().numpy() for x in WindowScores._fields))
