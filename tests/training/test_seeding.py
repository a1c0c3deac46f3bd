"""`Seeding`: a step's randomness follows from its place alone."""

from types import SimpleNamespace

import torch

from lightning_embed.training.seeding import Seeding

MODULE = SimpleNamespace(device=torch.device("cpu"))


def draws(seed: int = 1, epoch: int = 2, batch: int = 3, rank: int = 0) -> tuple[float, ...]:
    trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank)
    Seeding(seed).on_train_batch_start(trainer, MODULE, None, batch)
    return tuple(torch.rand(3).tolist())


def test_the_same_place_draws_the_same_whatever_came_before() -> None:
    first = draws()
    torch.rand(100)
    assert draws() == first


def test_each_of_seed_epoch_batch_and_rank_matters() -> None:
    places = [
        {},
        {"seed": 2},
        {"epoch": 3},
        {"batch": 4},
        {"rank": 1},
        {"epoch": 23, "batch": 3},  # digits must not run together: "2 33" and "23 3"
        {"epoch": 2, "batch": 33},
    ]
    assert len({draws(**place) for place in places}) == len(places)
