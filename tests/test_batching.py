"""Windows, the plan of global batches and its shares, collate, and the loader over them."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_embed.batching import (
    BatchSettings,
    PlanLoader,
    Windows,
    check_ids,
    cut_windows,
    plan_epoch,
)
from lightning_embed.special_tokens import IGNORE_INDEX, PAD_ID

FIXTURES = {"suppress_health_check": [HealthCheck.function_scoped_fixture], "deadline": None}


def windows_of(lengths: list[int]) -> Windows:
    """Windows of exactly these lengths."""
    return cut_windows(np.concatenate([[0], np.cumsum(np.array(lengths) + 1)]), max(lengths) + 1)


def random_windows(n: int, longest: int = 16) -> Windows:
    return windows_of(np.random.default_rng(0).integers(1, longest + 1, n).tolist())


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
    for start, length, context, document in zip(*windows, strict=True):
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
)
@settings(max_examples=100, deadline=None)
def test_every_window_is_in_one_batch_that_it_fits(lengths, tokens, rows, epoch, shuffle) -> None:
    batch = BatchSettings(tokens=tokens, widths=(4, 8, 16), rows=rows)
    windows = windows_of(lengths) if lengths else cut_windows(np.array([0]), 17)
    plan = plan_epoch(windows, batch, seed=0, epoch=epoch, shuffle=shuffle)
    assert sorted(plan.order.tolist()) == list(range(len(windows)))
    assert plan.bounds[0] == 0 and plan.bounds[-1] == len(windows)
    partial = 0
    for number in range(len(plan)):
        members = plan.order[plan.bounds[number] : plan.bounds[number + 1]]
        width = plan.widths[number]
        assert len(members) >= 1
        assert windows.length[members].max() <= width
        assert len(members) * width <= tokens
        assert rows is None or len(members) <= rows
        assert plan.targets[number] == windows.targets[members].sum()
        partial += len(members) < batch.rows_at(int(width))
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


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"widths": ()}, "widths must rise.*--data.widths"),
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


# Shares ----------------------------------------------------------------------------------------

SPLITS = [(w, a) for w in (1, 2, 4) for a in (1, 2, 4)]


@pytest.mark.parametrize(("world", "accumulate"), SPLITS)
@pytest.mark.parametrize("tokens", [64, 48])  # 48 is 3 rows of 16: no multiple of 2
def test_micro_batches_together_are_the_global_batch(make_rows, world, accumulate, tokens) -> None:
    rows = make_rows([3, 9, 17, 30, 5, 6, 2, 2, 12, 40, 11], max_length=16)
    loaders = [
        PlanLoader(
            rows,
            BatchSettings(tokens, (4, 8, 16)),
            seed=1,
            shuffle=True,
            rank=rank,
            world_size=world,
            accumulate=accumulate,
        )
        for rank in range(world)
    ]
    whole = list(PlanLoader(rows, loaders[0].settings, seed=1, shuffle=True).micro_batches())
    shares = [list(loader.micro_batches()) for loader in loaders]
    assert {len(share) for share in shares} == {len(whole) * accumulate} == {len(loaders[0])}
    for batch, expected in enumerate(whole):
        turns = [s[batch * accumulate + t] for s in shares for t in range(accumulate)]
        members = np.concatenate([micro.rows for micro in turns])
        assert sorted(members.tolist()) == sorted(expected.rows.tolist())
        # One shape and one pair of global counts for everybody, whoever has rows left over.
        assert len({micro[1:] for micro in turns}) == 1
        assert turns[0].width == expected.width
        assert turns[0].global_targets == expected.global_targets
        positions = sum(micro.n_rows * micro.width for micro in turns)
        assert turns[0].global_positions == positions
        assert all(len(micro.rows) <= micro.n_rows for micro in turns)
        sizes = [len(micro.rows) for micro in turns]
        assert max(sizes) - min(sizes) <= 1
    planned = loaders[0].plan.positions(world * accumulate)
    assert planned == sum(m.global_positions for m in shares[0][::accumulate])


@pytest.mark.parametrize(("world", "accumulate"), SPLITS)
def test_targets_of_all_shares_are_counted_by_everyone(make_rows, world, accumulate) -> None:
    rows = make_rows([3, 9, 17, 30, 5], max_length=16)
    totals: dict[int, int] = {}
    claimed: dict[int, set[int]] = {}
    for rank in range(world):
        loader = PlanLoader(
            rows,
            SETTINGS,
            seed=1,
            shuffle=True,
            rank=rank,
            world_size=world,
            accumulate=accumulate,
        )
        for number, batch in enumerate(loader):
            step = number // accumulate
            real = int((batch.targets != IGNORE_INDEX).sum())
            totals[step] = totals.get(step, 0) + real
            claimed.setdefault(step, set()).add(batch.global_targets)
    assert claimed == {step: {total} for step, total in totals.items()}
    assert sum(totals.values()) == sum([3, 9, 17, 30, 5]) - 5


# Collate ---------------------------------------------------------------------------------------


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


def test_bytes_of_a_document_are_shared_out_whole(make_rows) -> None:
    """Bits per byte divides by documents' bytes, so shares must add up without rounding away."""
    rows = make_rows([30], max_length=7, overlap=3)
    shares = [rows._bytes(window) for window in range(len(rows.windows))]
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


# The loader ------------------------------------------------------------------------------------


def same(one, two) -> bool:
    return all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(one, two, strict=True)
    )


@pytest.fixture
def loader(make_rows):
    rows = make_rows([3, 9, 17, 30, 5, 6, 2, 2, 12, 40, 11], max_length=16)

    def build(**settings) -> PlanLoader:
        return PlanLoader(rows, SETTINGS, **({"seed": 1, "shuffle": True} | settings))

    return build


def test_goes_on_from_any_position_once(loader) -> None:
    whole = list(loader(accumulate=2))
    one = loader(accumulate=2)
    one.start = 3
    rest = list(one)
    assert len(rest) == len(whole) - 3
    assert all(map(same, rest, whole[3:]))
    assert len(list(one)) == len(whole)  # the next epoch is a whole one again


def test_epochs_differ_and_come_back(loader) -> None:
    one = loader()
    first = list(one)
    one.set_epoch(1)
    second = list(one)
    one.set_epoch(0)
    again = list(one)
    assert all(map(same, first, again))
    assert not all(map(same, first, second))
    assert one.sampler.set_epoch == one.set_epoch  # Lightning's way to call it


def test_epoch_set_after_iter_counts(loader) -> None:
    """Lightning makes the iterator first and sets the epoch then."""
    one = loader()
    iterator = iter(one)
    one.set_epoch(1)
    late = list(iterator)
    two = loader()
    two.set_epoch(1)
    assert all(map(same, late, two))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # torch counts the cores
def test_workers_give_the_same_batches(loader) -> None:
    alone, helped = list(loader()), list(loader(num_workers=2))
    assert len(alone) == len(helped)
    assert all(map(same, alone, helped))


def test_leaves_the_global_generator_alone(loader) -> None:
    """Else dropout would depend on how often data was opened."""
    torch.manual_seed(3)
    before = torch.get_rng_state()
    list(loader())
    assert torch.equal(torch.get_rng_state(), before)
