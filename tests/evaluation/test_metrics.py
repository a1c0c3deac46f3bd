"""Evaluation sums against torchmetrics' own and against numbers worked out by hand."""

import math

import pytest
import torch
from torch import nn
from torchmetrics.text import Perplexity

from lightning_embed.evaluation.metrics import (
    GROUPS,
    LanguageModelMetrics,
    WindowSums,
    position_ranges,
)
from lightning_embed.model.loss import Scores
from lightning_embed.special_tokens import IGNORE_INDEX

pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method.*was called before")


def feed(metric: LanguageModelMetrics, nll, real, group=None, n_bytes=None, correct=None) -> None:
    nll, real = torch.tensor(nll), torch.tensor(real)
    correct = torch.zeros_like(real) if correct is None else torch.tensor(correct)
    group = torch.zeros(len(nll), dtype=torch.long) if group is None else torch.tensor(group)
    n_bytes = torch.ones(len(nll), dtype=torch.long) if n_bytes is None else torch.tensor(n_bytes)
    metric.update(Scores(nll, correct), real, group, n_bytes)


def test_hand_computation_with_unequal_batches() -> None:
    """A mean of the batches' means would be (2 + 5) / 2."""
    metric = LanguageModelMetrics()
    feed(
        metric,
        [[1.0, 2.0, 3.0]],
        [[True, True, True]],
        n_bytes=[10],
        correct=[[True, False, False]],
    )
    feed(metric, [[5.0, 0.0, 0.0]], [[True, False, False]], n_bytes=[2])
    found = metric.compute()
    assert found.loss == pytest.approx(11 / 4)
    assert found.perplexity == pytest.approx(math.exp(11 / 4))
    assert found.accuracy == pytest.approx(1 / 4)
    assert found.bits_per_byte == pytest.approx(11 / math.log(2) / 12)
    assert set(found.scalars) == {"loss", "perplexity", "accuracy", "bits_per_byte"}


def test_perplexity_is_that_of_torchmetrics(tiny_lm) -> None:
    model, theirs, ours = tiny_lm(), Perplexity(ignore_index=IGNORE_INDEX), LanguageModelMetrics()
    generator = torch.Generator().manual_seed(0)
    for rows, width, padding in ((4, 9, 3), (1, 5, 0), (2, 7, 6)):
        ids = torch.randint(2, 23, (rows, width), generator=generator)
        targets = torch.randint(2, 23, (rows, width), generator=generator)
        targets[0, width - padding :] = IGNORE_INDEX
        real = targets != IGNORE_INDEX
        # torchmetrics takes a softmax of its own; -inf at padding passes through it.
        theirs.update(model(ids).detach(), targets)
        ours.update(model.score(ids, targets), real, torch.zeros(rows).long(), real.sum(1))
    assert ours.compute().perplexity == pytest.approx(float(theirs.compute()), rel=1e-5)


def test_everything_is_nan_before_the_first_token() -> None:
    """Never 0 or 1, which would look like a result; and no exception at a sanity check."""
    found = LanguageModelMetrics().compute()
    assert all(math.isnan(value) for value in found.scalars.values())


def test_rows_of_padding_change_nothing() -> None:
    one, two = LanguageModelMetrics(), LanguageModelMetrics()
    feed(one, [[1.0, 2.0]], [[True, True]], n_bytes=[5])
    feed(two, [[1.0, 2.0], [0.0, 0.0]], [[True, True], [False, False]], n_bytes=[5, 0])
    assert one.compute().scalars == two.compute().scalars


def test_sources_are_summed_apart() -> None:
    metric = LanguageModelMetrics()
    feed(metric, [[1.0], [2.0], [4.0]], [[True]] * 3, group=[3, 7, 3], n_bytes=[10, 20, 40])
    feed(metric, [[8.0]], [[True]], group=[GROUPS + 7], n_bytes=[80])  # shares a place with 7
    found = metric.compute()
    assert {int(i): float(found.nll[i]) for i in found.nll.nonzero()} == {3: 5, 7: 10}
    assert {int(i): int(found.n_bytes[i]) for i in found.n_bytes.nonzero()} == {3: 50, 7: 100}


def test_result_does_not_change_when_more_is_added() -> None:
    metric = LanguageModelMetrics()
    feed(metric, [[1.0]], [[True]])
    found = metric.compute()
    feed(metric, [[1.0]], [[True]])
    assert float(found.nll.sum()) == 1


def test_ranks_add_up() -> None:
    """Two processes with unequal shares against one that saw everything."""
    first, second, whole = (LanguageModelMetrics() for _ in range(3))
    batches = [([[1.0, 2.0]], [[True, True]]), ([[5.0, 0.0]], [[True, False]])]
    for metric, mine in ((first, batches[:1]), (second, batches[1:]), (whole, batches)):
        for nll, real in mine:
            feed(metric, nll, real)
    first.merge_state(second)
    assert first.compute().scalars == whole.compute().scalars


def test_reset_forgets() -> None:
    metric = LanguageModelMetrics()
    feed(metric, [[1.0]], [[True]])
    metric.reset()
    assert math.isnan(metric.compute().loss)


@pytest.mark.parametrize("convert", [nn.Module.bfloat16, nn.Module.half, nn.Module.float])
def test_sums_keep_their_digits_when_the_model_is_converted(convert) -> None:
    holder = nn.ModuleList([LanguageModelMetrics()])
    convert(holder)
    metric = holder[0]
    for _ in range(2):  # also after a reset, which copies the defaults
        for _ in range(300):  # a bfloat16 sum of ones stops at 256, one of float16 at 2048
            feed(metric, [[1.0] * 10], [[True] * 10], n_bytes=[10])
        assert metric.compute().loss == 1
        assert int(metric.tokens.sum()) == 3000
        metric.reset()


# -- sums of each window ---------------------------------------------------------------------------


def test_positions_are_told_apart_in_doubling_ranges() -> None:
    assert position_ranges(64) == [(0, 8), (8, 16), (16, 32), (32, 64)]
    assert position_ranges(8) == [(0, 8)] and position_ranges(9) == [(0, 8), (8, 9)]


def test_windows_are_summed_apart_and_by_position() -> None:
    sums = WindowSums(windows=3, max_length=16)
    nll = torch.arange(10.0).expand(2, 10)
    real = torch.ones(2, 10, dtype=torch.bool)
    real[1, :9] = False  # context
    sums.update(
        Scores(nll * real, nll.gt(5) & real), real, torch.tensor([2, 0]), torch.tensor([40, 4])
    )
    # a row that is all padding has no window
    sums.update(Scores(nll * 0, nll < 0), ~real & real, torch.tensor([-1, -1]), torch.zeros(2))
    found = sums.compute()
    assert found.nll.tolist() == [[0, 9], [0, 0], [28, 17]]
    assert found.correct.tolist() == [[0, 1], [0, 0], [2, 2]]
    assert found.tokens.tolist() == [[0, 1], [0, 0], [8, 2]]
    assert found.n_bytes.tolist() == [4, 0, 40]


def test_windows_of_other_ranks_add_up() -> None:
    first, second = (WindowSums(windows=2, max_length=4) for _ in range(2))
    for number, sums in enumerate((first, second)):
        one = torch.ones(1, 3)
        sums.update(Scores(one, one), one > 0, torch.tensor([number]), torch.tensor([5]))
    first.merge_state(second)
    assert first.compute().nll.tolist() == [[3], [3]]
