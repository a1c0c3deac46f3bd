"""The loader that walks a plan: shares of its batches, and going on from any of them."""

import numpy as np
import pytest
import torch

from lightning_embed.data.loader import PlanLoader
from lightning_embed.data.plan import BatchSettings
from lightning_embed.special_tokens import IGNORE_INDEX

SETTINGS = BatchSettings(tokens=64, widths=(4, 8, 16))


# Shares ----------------------------------------------------------------------------------------

SPLITS = [(w, a) for w in (1, 2, 4) for a in (1, 2, 4)]


@pytest.mark.parametrize(("world", "accumulate"), SPLITS)
@pytest.mark.parametrize("tokens", [64, 48])  # 48 is 3 rows of 16: no multiple of 2
@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_micro_batches_together_are_the_global_batch(
    make_rows, world, accumulate, tokens, layout
) -> None:
    rows = make_rows([3, 9, 17, 30, 5, 6, 2, 2, 12, 40, 11], max_length=16)
    loaders = [
        PlanLoader(
            rows,
            BatchSettings(tokens, (4, 8, 16), layout=layout),
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
        members = np.concatenate([micro.windows for micro in turns])
        assert sorted(members.tolist()) == sorted(expected.windows.tolist())
        # One shape and one pair of global counts for everybody, whoever has rows left over.
        assert len({micro[2:] for micro in turns}) == 1
        assert turns[0].width == expected.width
        assert turns[0].global_targets == expected.global_targets
        positions = sum(micro.n_rows * micro.width for micro in turns)
        assert turns[0].global_positions == positions
        sizes = [int(micro.row.max(initial=-1)) + 1 for micro in turns]
        assert all(size <= turns[0].n_rows for size in sizes)
        assert all(len(set(micro.row.tolist())) == n for micro, n in zip(turns, sizes, strict=True))
        assert max(sizes) - min(sizes) <= 1
    planned = loaders[0].plan.positions(world * accumulate)
    assert planned == sum(m.global_positions for m in shares[0][::accumulate])


@pytest.mark.parametrize(("world", "accumulate"), SPLITS)
@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_targets_of_all_shares_are_counted_by_everyone(
    make_rows, world, accumulate, layout
) -> None:
    rows = make_rows([3, 9, 17, 30, 5], max_length=16)
    totals: dict[int, int] = {}
    claimed: dict[int, set[int]] = {}
    for rank in range(world):
        loader = PlanLoader(
            rows,
            BatchSettings(64, (4, 8, 16), layout=layout),
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


# Going on --------------------------------------------------------------------------------------


def same(one, two) -> bool:
    if isinstance(one, tuple):
        return all(same(a, b) for a, b in zip(one, two, strict=True))
    return torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two


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
