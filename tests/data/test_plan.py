"""Windows, rows, the plan of global batches: each window once, the same number of batches."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_embed.data.plan import BatchSettings, Plan, plan_epoch
from lightning_embed.data.windows import Windows, cut_windows


def windows_of(lengths: list[int]) -> Windows:
    """Windows of exactly these lengths."""
    return cut_windows(np.concatenate([[0], np.cumsum(np.array(lengths) + 1)]), max(lengths) + 1)


def random_windows(n: int, longest: int = 16) -> Windows:
    return windows_of(np.random.default_rng(0).integers(1, longest + 1, n).tolist())


def bounds_of_rows(plan: Plan) -> np.ndarray:
    return plan.begin(np.arange(plan.bounds[-1] + 1))


# Windows ---------------------------------------------------------------------------------------


def test_the_example_of_the_modules_docstring() -> None:
    windows = cut_windows(np.array([0, 4, 11]), 4)
    assert windows.length.tolist() == [3, 4, 2]
    assert windows.start.tolist() == [0, 4, 8]
    assert windows.document.tolist() == [0, 1, 1]


@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=8),
    max_length=st.integers(2, 9),
    overlap=st.integers(0, 8),
)
@settings(max_examples=100, deadline=None)
def test_each_token_is_a_target_exactly_once(lengths, max_length, overlap) -> None:
    overlap = min(overlap, max_length - 1)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    windows = cut_windows(offsets, max_length, overlap)
    seen = np.zeros(offsets[-1], dtype=int)
    for start, length, context, document in zip(*windows[np.arange(len(windows))], strict=True):
        assert 1 <= length <= max_length
        assert 0 <= context < length  # a window without a target would be wasted
        assert offsets[document] <= start and start + length < offsets[document + 1]
        seen[start + context + 1 : start + length + 1] += 1
    expected = np.ones(offsets[-1], dtype=int)
    expected[offsets[:-1][np.array(lengths) > 0]] = 0  # a document's first token is only read
    assert seen.tolist() == expected.tolist()
    assert windows.targets.sum() == expected.sum()


def test_windows_after_the_first_begin_with_context() -> None:
    windows = cut_windows(np.array([0, 12]), 6, overlap=2)
    assert windows.start.tolist() == [0, 4, 8]
    assert windows.length.tolist() == [6, 6, 3]
    assert windows.context.tolist() == [0, 2, 2]


@pytest.mark.parametrize(
    ("max_length", "overlap", "says"),
    [
        (1, 0, "not 1; change --data.max_length"),
        (4, 4, "overlap 4 .*max_length 4.*--data.eval_overlap"),
        (4, -1, "overlap -1"),
    ],
)
def test_bad_lengths_name_the_flag(max_length, overlap, says) -> None:
    with pytest.raises(ValueError, match=says):
        cut_windows(np.array([0, 4]), max_length, overlap)


# The plan --------------------------------------------------------------------------------------

SETTINGS = BatchSettings(tokens=64, widths=(4, 8, 16))


def test_plan_is_a_pure_function() -> None:
    windows = random_windows(200)
    np.random.seed(1)
    one = plan_epoch(windows, SETTINGS, seed=3, epoch=5)
    np.random.seed(2)
    torch.manual_seed(9)
    two = plan_epoch(windows, SETTINGS, seed=3, epoch=5)
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a, b)


def test_order_differs_between_epochs_and_seeds() -> None:
    windows = random_windows(200)
    orders = [
        tuple(plan_epoch(windows, SETTINGS, seed=s, epoch=e).order)
        for s, e in ((0, 0), (0, 1), (1, 0), (1, 1))
    ]
    assert len(set(orders)) == 4


@given(
    lengths=st.lists(st.integers(1, 16), max_size=80),
    tokens=st.integers(16, 100),
    rows=st.none() | st.integers(1, 9),
    epoch=st.integers(0, 3),
    shuffle=st.booleans(),
    layout=st.sampled_from(["padded", "packed"]),
)
@settings(max_examples=200, deadline=None)
def test_every_window_is_in_one_row_of_one_batch_that_it_fits(
    lengths, tokens, rows, epoch, shuffle, layout
) -> None:
    batch = BatchSettings(tokens=tokens, widths=(4, 8, 16), rows=rows, layout=layout)
    windows = windows_of(lengths) if lengths else cut_windows(np.array([0]), 17)
    plan = plan_epoch(windows, batch, seed=0, epoch=epoch, shuffle=shuffle)
    assert sorted(plan.order.tolist()) == list(range(len(windows)))
    row_bounds = bounds_of_rows(plan)
    sizes = np.diff(row_bounds)
    assert row_bounds[0] == 0 and row_bounds[-1] == len(windows)
    assert plan.bounds[0] == 0 and plan.bounds[-1] == len(sizes)
    assert (sizes == 1).all() if layout == "padded" else (sizes >= 1).all()
    partial = 0
    for number in range(len(plan)):
        begins = row_bounds[plan.bounds[number] : plan.bounds[number + 1] + 1]
        members = plan.order[begins[0] : begins[-1]]
        n_rows, width = len(begins) - 1, plan.widths[number]
        assert n_rows >= 1
        for begin, end in pairwise(begins):
            assert windows.length[plan.order[begin:end]].sum() <= width
        assert n_rows * width <= tokens
        assert rows is None or n_rows <= rows
        assert plan.targets[number] == windows.targets[members].sum()
        pairs = sum(n + 1 for length in windows.length[members] for n in range(length))
        assert plan.pairs[number] == pairs
        partial += n_rows < batch.rows_at(int(width))
    assert partial <= 1
    assert plan.positions() == sum(batch.rows_at(int(width)) * int(width) for width in plan.widths)


def test_batches_hold_rows_of_like_length_and_little_padding() -> None:
    windows = random_windows(2000)
    plan = plan_epoch(windows, SETTINGS, seed=0, epoch=0)
    alike = 1 - windows.targets.sum() / plan.positions()
    mixed = 1 - windows.targets.mean() / 16  # every row padded to the widest
    assert alike < 0.25 < 0.4 < mixed  # lengths are even from 1 to 16: 22.7 % at these widths


def test_batches_come_in_no_order_of_width_unless_told() -> None:
    windows = random_windows(500)
    shuffled = plan_epoch(windows, SETTINGS, seed=0, epoch=0).widths.tolist()
    assert shuffled not in (sorted(shuffled), sorted(shuffled, reverse=True))
    told = plan_epoch(windows, SETTINGS, seed=0, epoch=0, shuffle=False).widths.tolist()
    assert told == sorted(told, reverse=True)  # what needs most memory comes first


def test_neighbours_in_a_batch_change_from_epoch_to_epoch() -> None:
    windows = windows_of([3] * 64)
    one, two = (plan_epoch(windows, SETTINGS, seed=0, epoch=e) for e in (0, 1))
    groups = [
        {frozenset(p.order[a:b].tolist()) for a, b in zip(p.bounds[:-1], p.bounds[1:], strict=True)}
        for p in (one, two)
    ]
    assert not groups[0] & groups[1]


# Packed rows -----------------------------------------------------------------------------------

PACKED = BatchSettings(tokens=64, widths=(4, 8, 16), layout="packed")


def test_packed_rows_are_nearly_full() -> None:
    windows = random_windows(2000)
    plan = plan_epoch(windows, PACKED, seed=0, epoch=0)
    assert windows.targets.sum() / plan.positions() > 0.97


@given(lengths=st.lists(st.integers(1, 16), min_size=1, max_size=80), seed=st.integers(0, 99))
@settings(max_examples=100, deadline=None)
@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_every_epoch_and_seed_has_as_many_batches(layout, lengths, seed) -> None:
    """A run goes on by counting batches."""
    batch = BatchSettings(tokens=40, widths=(4, 8, 16), layout=layout)
    windows = windows_of(lengths)
    counts = {len(plan_epoch(windows, batch, seed=seed * e, epoch=e)) for e in range(4)}
    assert len(counts) == 1


def test_neighbours_in_a_packed_row_change_from_epoch_to_epoch() -> None:
    windows = windows_of([8] * 64)
    rows = []
    for epoch in (0, 1):
        plan = plan_epoch(windows, PACKED, seed=0, epoch=epoch)
        assert (np.diff(bounds_of_rows(plan)) == 2).all()
        rows.append({frozenset(pair) for pair in plan.order.reshape(-1, 2).tolist()})
    assert len(rows[0] & rows[1]) < 8


def test_packed_batches_hold_lengths_in_no_order() -> None:
    windows = random_windows(2000)
    plan = plan_epoch(windows, PACKED, seed=0, epoch=0)
    counts = np.diff(plan.begin(plan.bounds))
    half = len(counts) // 2
    assert abs(counts[:half].mean() / counts[half:].mean() - 1) < 0.1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"widths": ()}, "widths must be positive and sorted ascending.*--data.widths"),
        ({"widths": (8, 4)}, r"\[8, 4\]"),
        ({"widths": (4, 4)}, r"\[4, 4\]"),
        ({"widths": (0, 4)}, r"\[0, 4\]"),
        ({"tokens": 15}, "15 tokens.*16.*--data.tokens_per_batch.*--data.max_length"),
        ({"rows": 0}, "not 0; change --data.rows_per_batch"),
    ],
)
def test_bad_batch_settings_name_the_flag(arguments, says) -> None:
    with pytest.raises(ValueError, match=says):
        BatchSettings(**({"tokens": 64, "widths": (4, 16)} | arguments))


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_a_batchs_windows_are_those_of_its_shares(layout: str) -> None:
    windows = cut_windows(np.cumsum([0, *range(3, 40)]), 16)
    plan = plan_epoch(windows, BatchSettings(64, (8, 16), layout=layout), seed=1, epoch=2)
    for batch in range(len(plan)):
        shares = [plan.micro_batch(batch, index, 3).windows for index in range(3)]
        assert sorted(plan.windows_of(batch)) == sorted(np.concatenate(shares))
