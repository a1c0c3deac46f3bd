"""The chunked loss against torch's cross-entropy."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_embed.model import loss
from lightning_embed.model.loss import cross_entropy_sum, padding_bias, score
from lightning_embed.special_tokens import IGNORE_INDEX

V, D = 13, 5
TARGETS = {
    "all real": [3, 0, 12, 2, 2, 7, 9],
    "some ignored": [3, IGNORE_INDEX, 12, IGNORE_INDEX, IGNORE_INDEX, 2, 0],
    "all ignored": [IGNORE_INDEX] * 7,
    "none at all": [],
}


def example(kind: str, dtype: torch.dtype = torch.float64):
    torch.manual_seed(0)
    targets = torch.tensor(TARGETS[kind], dtype=torch.long)
    hidden = torch.randn(len(targets), D, dtype=dtype, requires_grad=True)
    weight = torch.randn(V, D, dtype=dtype, requires_grad=True)
    return hidden, weight, targets


def reference(hidden, weight, targets, padding_idx):
    """torch's own, on logits with padding at minus infinity."""
    logits = F.linear(hidden, weight)
    if padding_idx is not None:
        logits = logits.masked_fill(torch.arange(V) == padding_idx, -math.inf)
    return F.cross_entropy(logits, targets, ignore_index=IGNORE_INDEX, reduction="sum")


@pytest.fixture(params=[10**6, 3, 1], ids=["one chunk", "three rows a chunk", "row by row"])
def chunked(request, monkeypatch) -> None:
    monkeypatch.setattr(loss, "rows_at_once", lambda *_, **__: request.param)


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("step", [loss.chunk_loss, loss.chunk_loss_to_compile])
@pytest.mark.parametrize("padding_idx", [1, 0, None])
@pytest.mark.parametrize("kind", TARGETS)
def test_value_and_gradients_are_torchs(kind, padding_idx, step) -> None:
    hidden, weight, targets = example(kind)
    if padding_idx == 0:
        targets = targets.masked_fill(targets == 0, 4)  # nothing real may be the padding word
    ours = cross_entropy_sum(hidden, weight, targets, padding_idx, step)
    theirs = reference(hidden, weight, targets, padding_idx)
    assert ours.dtype == torch.float64 and ours.shape == ()
    torch.testing.assert_close(ours, theirs)
    got = torch.autograd.grad(ours, (hidden, weight))
    expected = torch.autograd.grad(theirs, (hidden, weight))
    for mine, other in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, other)
    if padding_idx is not None:
        assert (got[1][padding_idx] == 0).all()


@pytest.mark.usefixtures("chunked")
def test_gradcheck() -> None:
    hidden, weight, targets = example("some ignored")
    assert torch.autograd.gradcheck(
        lambda h, w: cross_entropy_sum(h, w, targets, 1), (hidden, weight)
    )


@pytest.mark.parametrize("kind", ["all ignored", "none at all"])
def test_nothing_to_predict_is_zero_and_not_nan(kind) -> None:
    hidden, weight, targets = example(kind, torch.float32)
    value = cross_entropy_sum(hidden, weight, targets, 1)
    value.backward()
    assert float(value) == 0
    assert (hidden.grad == 0).all() and (weight.grad == 0).all()


def test_ignored_rows_may_hold_anything() -> None:
    """What stands at padding positions must not leak, not even as 0 times NaN."""
    hidden, weight, targets = example("some ignored")
    clean = cross_entropy_sum(hidden, weight, targets, 1)
    with torch.no_grad():
        hidden[targets == IGNORE_INDEX] = 1e30
    dirty = cross_entropy_sum(hidden, weight, targets, 1)
    assert float(dirty) == float(clean)
    gradient = torch.autograd.grad(dirty, hidden)[0]
    assert (gradient[targets == IGNORE_INDEX] == 0).all()


def test_backward_takes_the_factor_that_comes_from_above() -> None:
    """Accumulation, ranks and a gradient scaler all multiply the loss."""
    gradients = []
    for factor in (1.0, 2.0, -0.125):
        hidden, weight, targets = example("some ignored")
        (factor * cross_entropy_sum(hidden, weight, targets, 1)).backward()
        gradients.append((hidden.grad / factor, weight.grad / factor))
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0])


def test_only_one_side_needs_gradients() -> None:
    hidden, weight, targets = example("all real")
    frozen = weight.detach()
    cross_entropy_sum(hidden, frozen, targets, 1).backward()
    torch.testing.assert_close(
        hidden.grad, torch.autograd.grad(reference(hidden, frozen, targets, 1), hidden)[0]
    )


@pytest.mark.usefixtures("chunked")
def test_bfloat16_autocast_is_close_to_float32() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(64, D, requires_grad=True)
    weight = torch.randn(V, D, requires_grad=True)
    targets = torch.randint(2, V, (64,))
    exact = cross_entropy_sum(hidden, weight, targets, 1)
    expected = torch.autograd.grad(exact, (hidden, weight))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = cross_entropy_sum(hidden, weight, targets, 1)
    assert rough.dtype == torch.float32
    got = torch.autograd.grad(rough, (hidden, weight))
    assert float(rough) == pytest.approx(float(exact), rel=5e-3)
    for mine, other in zip(got, expected, strict=True):
        assert mine.dtype == torch.float32
        # bfloat16 has 8 bits: single entries are off by a percent of the largest.
        torch.testing.assert_close(mine, other, rtol=0, atol=0.02 * float(other.abs().max()))
    assert (got[1][1] == 0).all()


def test_chunks_are_added_up_in_float32_and_stay_so(monkeypatch) -> None:
    torch.manual_seed(0)
    weight = torch.randn(V, D, requires_grad=True)
    rounded = []
    for rows in (32, 4):
        monkeypatch.setattr(loss, "MAX_LOGITS_EAGER", rows * V)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = cross_entropy_sum(torch.randn(32, D), weight, torch.randint(2, V, (32,)), 1)
        (grad,) = torch.autograd.grad(value, weight)
        rounded.append(bool((grad == grad.bfloat16()).all()))
    assert rounded == [True, False]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_sum_in_float32(dtype) -> None:
    hidden, weight, targets = example("all real", dtype)
    value = cross_entropy_sum(hidden, weight, targets, 1)
    value.backward()
    assert value.dtype == torch.float32
    assert weight.grad.dtype == hidden.grad.dtype == dtype
    expected = reference(hidden.double(), weight.double(), targets, 1)
    assert float(value) == pytest.approx(float(expected), rel=0.02)


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="torch has it from 2.13 on")
def test_against_torchs_linear_cross_entropy() -> None:
    hidden, weight, targets = example("some ignored", torch.float32)
    theirs = F.linear_cross_entropy(
        hidden,
        weight,
        targets,
        linear_bias=padding_bias(weight, 1),
        reduction="sum",
        options=nn.LinearCrossEntropyOptions(),
    )
    ours = cross_entropy_sum(hidden, weight, targets, 1)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours, (hidden, weight)), torch.autograd.grad(theirs, (hidden, weight))
    )


def test_never_holds_all_logits(monkeypatch) -> None:
    monkeypatch.setattr(loss, "MAX_LOGITS_COMPILED", 4 * V)
    hidden, weight, targets = example("all real")
    sizes = []

    def spy(h, w, t, b):
        sizes.append(len(h))
        return loss.chunk_loss(h, w, t, b)

    cross_entropy_sum(hidden, weight, targets, 1, spy)
    assert sizes == [4, 3]


def test_no_position_has_no_gradient() -> None:
    weight = torch.randn(V, D, requires_grad=True)
    none = cross_entropy_sum(torch.randn(0, D), weight, torch.zeros(0, dtype=torch.long), 1)
    none.backward()
    assert none.item() == 0
    assert not weight.grad.any()


def test_a_chunk_has_at_least_a_row_and_more_of_them_compiled() -> None:
    head = torch.empty(50_257, 0)
    assert 1 < loss.rows_at_once(head, compiled=False) < loss.rows_at_once(head, compiled=True)
    assert loss.rows_at_once(torch.empty(10**8, 0), compiled=False) == 1


def test_padding_bias() -> None:
    bias = padding_bias(torch.zeros(4, 2, dtype=torch.bfloat16), 1)
    assert bias.dtype == torch.bfloat16
    assert bias.tolist() == [0, -math.inf, 0, 0]
    assert padding_bias(torch.zeros(4, 2), None) is None


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("kind", TARGETS)
def test_score_is_per_position_loss_and_hits(kind) -> None:
    hidden, weight, targets = example(kind, torch.float32)
    logits = F.linear(hidden, weight).masked_fill(torch.arange(V) == 1, -math.inf)
    if kind == "all real":
        targets[0] = int(logits[0].argmax())  # at least one hit
    nll, correct = score(hidden, weight, targets, 1)
    assert nll.dtype == torch.float32 and not nll.requires_grad
    torch.testing.assert_close(nll, F.cross_entropy(logits, targets, reduction="none").detach())
    assert correct.tolist() == [
        t != IGNORE_INDEX and int(row.argmax()) == t
        for row, t in zip(logits, targets.tolist(), strict=True)
    ]
    if kind == "all real":
        assert correct[0]


def test_score_never_counts_padding_as_most_likely() -> None:
    hidden = torch.ones(1, 2)
    weight = torch.tensor([[0.0, 0.0], [9.0, 9.0], [1.0, 1.0]])  # padding fits best
    assert score(hidden, weight, torch.tensor([2]), 1).correct.tolist() == [True]


def test_an_infinite_loss_never_has_finite_gradients() -> None:
    """A target that cannot be predicted costs infinitely much and has a finite gradient."""
    hidden = torch.randn(3, 4, requires_grad=True)
    weight = torch.randn(7, 4, requires_grad=True)
    loss = cross_entropy_sum(hidden, weight, torch.tensor([2, 1, 3]), padding_idx=1)
    assert loss == math.inf
    loss.backward()
    assert hidden.grad is not None and hidden.grad.isnan().all()
    assert weight.grad is not None and weight.grad.isnan().any()
