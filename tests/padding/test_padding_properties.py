"""Whatever the batch, its lengths and its width: padding changes nothing.

Rows are padded on the right by random amounts, share rows with other windows, and stand beside rows
that are padding alone.
"""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_embed import DecoderLM, TokenEmbedding
from lightning_embed.data.batch import PaddedRows
from lightning_embed.data.loader import PlanLoader
from lightning_embed.data.plan import BatchSettings
from lightning_embed.data.windows import cut_windows
from lightning_embed.special_tokens import IGNORE_INDEX, PAD_ID

VOCABULARY = 23  # that of `tiny_lm`
quick = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# Tokens of each document, and how much wider than the longest the batch is.
lengths = st.lists(st.integers(1, 12), min_size=1, max_size=4)
extra = st.integers(0, 9)
seeds = st.integers(0, 2**16)


class Padded(NamedTuple):
    """Ids, targets and which positions are real, `(B, T)` each."""

    ids: Tensor
    targets: Tensor
    real: Tensor


def documents(counts: list[int], seed: int) -> list[Tensor]:
    """Each one id longer than its count: the last is a target only."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(2, VOCABULARY, (n + 1,), generator=generator) for n in counts]


def pad(rows: list[Tensor], width: int) -> Padded:
    ids = torch.full((len(rows), width), PAD_ID)
    targets = torch.full((len(rows), width), IGNORE_INDEX)
    real = torch.zeros(len(rows), width, dtype=torch.bool)
    for number, row in enumerate(rows):
        count = len(row) - 1
        ids[number, :count], targets[number, :count] = row[:-1], row[1:]
        real[number, :count] = True
    return Padded(ids, targets, real)


class Result(NamedTuple):
    loss: Tensor
    gradients: dict[str, Tensor]
    logits: Tensor  # of real positions in order, `(tokens, V)`


def measured(model: DecoderLM, batch: Padded) -> Result:
    """Loss and gradients of the mean over real targets, as in training."""
    model.zero_grad()
    n = max(1, int((batch.targets != IGNORE_INDEX).sum()))
    loss = model.loss(batch.ids, batch.targets) / n
    loss.backward()
    with torch.no_grad():
        logits = model(batch.ids)
    assert logits.shape == (*batch.ids.shape, VOCABULARY)
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    return Result(loss.detach(), gradients, logits[batch.real])


def assert_same(got: Result, expected: Result, tolerance: float, of_logits: float) -> None:
    torch.testing.assert_close(got.loss, expected.loss, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(got.logits, expected.logits, rtol=of_logits, atol=of_logits)
    for name, gradient in expected.gradients.items():
        torch.testing.assert_close(
            got.gradients[name],
            gradient,
            rtol=tolerance,
            atol=tolerance,
            msg=lambda message, name=name: f"{name}: {message}",
        )


def alone(model: DecoderLM, rows: list[Tensor]) -> Result:
    """Each document by itself, without padding: what padding must not change."""
    model.zero_grad()
    n = sum(len(row) - 1 for row in rows)
    total = sum(model.loss(row[None, :-1], row[None, 1:]) for row in rows) / n
    total.backward()
    with torch.no_grad():
        logits = torch.cat([model(row[None, :-1])[0] for row in rows])
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    return Result(total.detach(), gradients, logits)


@given(
    lengths=lengths,
    extra=extra,
    seed=seeds,
    tied=st.booleans(),
    n_kv_heads=st.sampled_from([None, 1]),
)
@quick
def test_padding_changes_nothing_in_float64(
    tiny_lm, lengths, extra, seed, tied, n_kv_heads
) -> None:
    model = tiny_lm(tied=tied, n_kv_heads=n_kv_heads)
    rows = documents(lengths, seed)
    batch = pad(rows, max(lengths) + extra)
    assert_same(measured(model, batch), alone(model, rows), 1e-10, 1e-10)


@given(lengths=lengths, extra=extra, seed=seeds)
@quick
def test_padding_changes_nothing_in_float32(tiny_lm, lengths, extra, seed) -> None:
    """With numbers of ordinary size: with those of the test above float32's own rounding error of a
    gradient is up to 6e-6 of its norm, whatever the padding, and that of the padding up to 3e-6."""
    model = tiny_lm(torch.float32, tied=False, init="torch")
    with torch.no_grad():
        for block in model.layers():
            block.attention.o_proj.weight.mul_(0.2)
            block.feed_forward.down_proj.weight.mul_(0.2)
    rows = documents(lengths, seed)
    batch = pad(rows, max(lengths) + extra)
    assert_same(measured(model, batch), alone(model, rows), 1e-6, 1e-5)


@given(
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=9),
    seed=seeds,
    layout=st.sampled_from(["padded", "packed"]),
    n_kv_heads=st.sampled_from([None, 1]),
    fused=st.booleans(),
)
@quick
def test_windows_that_share_rows_do_not_see_each_other(
    tiny_lm, counts, seed, layout, n_kv_heads, fused
) -> None:
    """Both layouts, as the loader hands them over, against each document by itself."""
    model = tiny_lm(n_kv_heads=n_kv_heads)
    documents_ids = documents(counts, seed)
    offsets = np.concatenate([[0], np.cumsum([len(d) for d in documents_ids])])
    rows = PaddedRows(
        torch.cat(documents_ids).numpy(),
        cut_windows(offsets, 12),
        group=np.zeros(len(counts), np.int64),
        n_bytes=np.ones(len(counts), np.int64),
        offsets=offsets,
        vocab_size=VOCABULARY,
    )
    plan = BatchSettings(12 * len(counts), (12,), layout=layout)
    (batch,) = PlanLoader(rows, plan, seed=0, shuffle=True)
    expected = alone(model, documents_ids)
    model.zero_grad()
    with pytest.MonkeyPatch.context() as patch:
        if fused:
            patch.setattr("lightning_embed.model.segments.EXPLICIT_UP_TO", 0)
        how = {"segments": batch.segments, "repack": batch.repack}
        loss = model.loss(batch.ids, batch.targets, **how) / batch.global_targets
        loss.backward()
        scores = model.score(batch.ids, batch.targets, **how)
    torch.testing.assert_close(loss.detach(), expected.loss, rtol=1e-10, atol=1e-10)
    for name, parameter in model.named_parameters():
        gradient = expected.gradients[name]
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-10)
    assert not model.embedding.weight.grad[PAD_ID].any()
    assert scores.nll.shape == batch.ids.shape and scores.correct.shape == batch.ids.shape
    mean = scores.nll.sum() / batch.global_targets
    torch.testing.assert_close(mean, expected.loss.float(), rtol=1e-5, atol=1e-5)
    assert not scores.nll[batch.targets == IGNORE_INDEX].any()
    assert (scores.nll[batch.targets != IGNORE_INDEX] > 0).all()


@given(lengths=lengths, seed=seeds, before=st.integers(0, 2))
@quick
def test_rows_of_padding_alone_give_neither_nan_nor_gradient(
    tiny_lm, lengths, seed, before
) -> None:
    model = tiny_lm()
    rows = documents(lengths, seed)
    batch = pad(rows, max(lengths))
    more = pad([*rows, torch.tensor([PAD_ID])], max(lengths))
    order = torch.randperm(len(rows) + 1, generator=torch.Generator().manual_seed(before))
    empty = int((order == len(rows)).nonzero())
    more = Padded(*(x[order] for x in more))
    model.zero_grad()
    assert model(more.ids)[..., 2:].isfinite().all()
    torch.testing.assert_close(
        model.loss(more.ids, more.targets),
        model.loss(batch.ids, batch.targets),
        rtol=1e-10,
        atol=1e-10,
    )
    # Alone it has a loss of 0 and no gradient anywhere.
    picked = slice(empty, empty + 1)
    loss = model.loss(more.ids[picked], more.targets[picked])
    loss.backward()
    assert loss.item() == 0
    for name, parameter in model.named_parameters():
        assert (parameter.grad == 0).all(), name


@given(
    shape=st.lists(st.integers(0, 5), max_size=3),
    width=st.integers(1, 9),
    vocabulary=st.integers(2, 30),
    data=st.data(),
    scale=st.booleans(),
)
@quick
def test_an_embedding_has_the_shape_of_its_ids_and_no_gradient_from_padding(
    shape, width, vocabulary, data, scale
) -> None:
    padding = data.draw(st.integers(-vocabulary, vocabulary - 1))
    embedding = TokenEmbedding(vocabulary, width, padding, scale=scale).double()
    generator = torch.Generator().manual_seed(data.draw(seeds))
    ids = torch.randint(0, vocabulary, shape, generator=generator)
    vectors = embedding(ids)
    assert vectors.shape == (*shape, width)
    is_padding = ids == padding % vocabulary
    assert (vectors[is_padding] == 0).all()
    (vectors * torch.rand(vectors.shape, generator=generator, dtype=torch.float64)).sum().backward()
    touched = ids[~is_padding].unique()
    rows = embedding.weight.grad.abs().sum(dim=1).nonzero().flatten()
    assert rows.tolist() == touched.tolist()
