"""Rows filled with tokens, and repacked."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_embed.data.batch import Batch, check_ids
from lightning_embed.data.loader import PlanLoader
from lightning_embed.data.plan import BatchSettings
from lightning_embed.special_tokens import IGNORE_INDEX, PAD_ID

FIXTURES = {"suppress_health_check": [HealthCheck.function_scoped_fixture], "deadline": None}


@given(
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=8),
    overlap=st.integers(0, 5),
)
@settings(max_examples=50, **FIXTURES)
def test_rows_are_right_padded_and_targets_are_one_further_on(make_rows, lengths, overlap) -> None:
    rows = make_rows(lengths, max_length=8, overlap=overlap)
    n_bytes = targets_seen = 0
    for batch in PlanLoader(rows, BatchSettings(32, (4, 8)), seed=0, shuffle=True):
        ids, targets = batch.ids, batch.targets
        assert ids.dtype == targets.dtype == torch.int64
        for row in range(len(ids)):
            length = int((ids[row] != PAD_ID).sum())
            assert (ids[row, length:] == PAD_ID).all()
            assert (targets[row, length:] == IGNORE_INDEX).all()
            real = (targets[row] != IGNORE_INDEX).nonzero().flatten()
            if length == 0:
                assert len(real) == 0 and batch.n_bytes[row] == 0
                continue
            # Tokens are numbered, so what comes next is one more; `real` ends where padding begins.
            assert (targets[row, real] == ids[row, real] + 1).all()
            assert real.tolist() == list(range(int(real[0]), length))
            assert int(real[0]) in (0, overlap)
        n_bytes += int(batch.n_bytes.sum())
        targets_seen += int((targets != IGNORE_INDEX).sum())
    assert targets_seen == sum(lengths) - len(lengths)  # positions of context have none
    assert n_bytes == int(rows.n_bytes.sum())


def rows_of(batch: Batch) -> list[tuple[list[int], list[int]]]:
    """Each segment's ids and targets, from the rows that are computed."""
    assert batch.segments is not None
    ids, targets = batch.ids.flatten(), batch.targets.flatten()
    if batch.repack is not None:
        assert batch.repack.shape == batch.segments.start.shape
        ids, targets = ids[batch.repack.flatten()], targets[batch.repack.flatten()]
    edges = batch.segments.cu_seqlens.tolist()
    return [(ids[a:b].tolist(), targets[a:b].tolist()) for a, b in pairwise(edges)]


@given(
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=12),
    overlap=st.integers(0, 5),
    layout=st.sampled_from(["padded", "packed"]),
    tokens=st.integers(16, 80),
)
@settings(max_examples=100, **FIXTURES)
def test_segments_are_windows_and_left_over_padding(
    make_rows, lengths, overlap, layout, tokens
) -> None:
    """Whatever the layout, what is computed is every window once, in no more rows than given."""
    rows = make_rows(lengths, max_length=16, overlap=overlap)
    batch_settings = BatchSettings(tokens, (8, 16), layout=layout)
    found = []
    for batch in PlanLoader(rows, batch_settings, seed=0, shuffle=True):
        start, bounds = batch.segments
        assert start.dtype == bounds.dtype == torch.int32
        assert start.shape[1] <= batch.ids.shape[1]
        flat = torch.arange(start.numel())
        width = start.shape[1]
        assert start.numel() <= batch.ids.numel()
        begins = torch.bucketize(flat, bounds, right=True) - 1  # the segment of each position
        assert torch.equal(start.flatten(), bounds[begins] % width)
        assert torch.equal(flat // width, bounds[begins] // width)  # in its own row
        for ids, targets in rows_of(batch):
            real = [x for x in ids if x != PAD_ID]
            assert real in ([], ids)  # padding is a segment of its own
            if not real:
                assert set(targets) == {IGNORE_INDEX}
            else:
                found.append((ids, targets))
    expected, places = [], rows.windows[np.arange(len(rows.windows))]
    for begin, length, context, _ in zip(*places, strict=True):
        piece = rows.filler.tokens[begin : begin + length + 1].tolist()
        expected.append((piece[:-1], [IGNORE_INDEX] * context + piece[context + 1 :]))
    assert sorted(found) == sorted(expected)


def test_half_empty_rows_are_computed_in_half_as_many(make_rows) -> None:
    rows = make_rows([9] * 8, max_length=16)
    (batch,) = PlanLoader(rows, BatchSettings(128, (16,)), seed=0, shuffle=True)
    assert batch.ids.shape == (8, 16)
    assert batch.repack.numel() == 4 * 16


def test_rows_are_no_wider_than_what_lies_in_them_needs(make_rows) -> None:
    rows = make_rows([6] * 8, max_length=16)
    (batch,) = PlanLoader(rows, BatchSettings(128, (16,)), seed=0, shuffle=True)
    assert batch.ids.shape == (8, 16)
    assert batch.repack.numel() == 4 * 10  # two windows of 5; three would leave one position empty


def test_full_rows_are_computed_as_they_are(make_rows) -> None:
    rows = make_rows([17] * 8, max_length=16)
    (batch,) = PlanLoader(rows, BatchSettings(128, (16,)), seed=0, shuffle=True)
    assert batch.repack is None and batch.segments.start.shape == (8, 16)


def test_never_one_row_alone_where_there_were_more(make_rows) -> None:
    """A size of 1 is a graph of its own for torch.compile."""
    rows = make_rows([3, 3], max_length=16)
    (batch,) = PlanLoader(rows, BatchSettings(64, (16,)), seed=0, shuffle=True)
    assert batch.repack.shape == (2, 2)
    rows = make_rows([9, 8], max_length=16)
    (batch,) = PlanLoader(rows, BatchSettings(16, (16,), layout="packed"), seed=0, shuffle=True)
    assert batch.repack is None and batch.ids.shape == (1, 16)


def test_a_packed_row_has_the_bytes_of_all_its_windows(make_rows) -> None:
    rows = make_rows([5, 6, 7, 8], max_length=16)
    batches = list(
        PlanLoader(rows, BatchSettings(16, (16,), layout="packed"), seed=0, shuffle=True)
    )
    assert sum(int(b.n_bytes.sum()) for b in batches) == int(rows.n_bytes.sum())


def test_bytes_of_a_document_are_shared_out_whole(make_rows) -> None:
    """Bits per byte divides by documents' bytes, so shares must add up without rounding away."""
    rows = make_rows([30], max_length=7, overlap=3)
    shares = rows.bytes_of(rows.windows[np.arange(len(rows.windows))])
    assert sum(shares) == 7 * 30 + 1
    per_target = np.array(shares) / rows.windows.targets
    assert np.ptp(per_target) < 1


def test_group_is_the_documents_source(make_rows) -> None:
    rows = make_rows([20, 5, 20], max_length=8)  # sources 0, 1, 2; tokens tell documents apart
    for batch in PlanLoader(rows, BatchSettings(32, (8,)), seed=0, shuffle=True):
        for ids, group in zip(batch.ids, batch.group, strict=True):
            if int(ids[0]) != PAD_ID:
                place = int(ids[0]) - 4
                assert int(group) == int(np.searchsorted([20, 25], place, side="right"))


def test_ids_outside_the_vocabulary_are_refused_where_rows_are_made(make_rows) -> None:
    rows = make_rows([20], vocab_size=23)  # ids 4 to 23
    with pytest.raises(ValueError, match=r"token id 23 .*vocabulary of 23.*--data.tokenizer"):
        list(PlanLoader(rows, BatchSettings(32, (8,)), seed=0, shuffle=True))


def test_the_last_token_is_checked_though_only_a_target(make_rows) -> None:
    rows = make_rows([3], vocab_size=6)  # ids 4, 5 go in, 6 is only a target
    with pytest.raises(ValueError, match="token id 6"):
        list(PlanLoader(rows, BatchSettings(32, (8,)), seed=0, shuffle=True))


def test_check_ids_accepts_what_fits_and_nothing_at_all() -> None:
    check_ids(np.array([0, IGNORE_INDEX, 22]), 23)
    check_ids(np.array([], dtype=np.int64), 23)
    with pytest.raises(ValueError, match="token id 23"):
        check_ids(np.array([[23]]), 23)
