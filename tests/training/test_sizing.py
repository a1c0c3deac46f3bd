"""The rule that sizes a run, on machines that are made up."""

import json
import math
import sys
from pathlib import Path

import pytest
from workshop import ROOT

from lightning_embed.training.sizing import (
    LAW,
    USEFUL_PASSES,
    Cost,
    Kept,
    Shape,
    Size,
    Text,
    batch_size,
    choose,
    dropout,
    learning_rates,
    shapes,
    size_at,
    work,
)

STDLIB = Text(unique=1_800_000, vocabulary=4096, max_length=256)
SMALL = Text(unique=40_000, vocabulary=512, max_length=256)


class Machine:
    """Steps cost what their products cost, and a millisecond a layer."""

    def __init__(self, rate: float, memory: float = math.inf) -> None:
        self.rate, self.memory, self.asked = rate, memory, list[int]()

    def __call__(self, shape: Shape, positions: int) -> Cost | None:
        self.asked.append(shape.d_model)
        if work(shape, 4096) > self.memory:
            return None
        return Cost(1e-3 * shape.n_layers, 6 * work(shape, 4096) / self.rate)


def chosen(
    seconds: float, rate: float = 1e11, text: Text = STDLIB, kept: Kept | None = None
) -> Size:
    size = choose(seconds, text, kept or Kept(), Machine(rate))
    assert size is not None
    return size


def test_more_time_or_a_faster_machine_trains_more() -> None:
    sizes = [chosen(seconds).shape.parameters for seconds in (30, 300, 3_000)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]
    assert chosen(300, rate=1e13).shape.parameters > chosen(300).shape.parameters
    assert chosen(300).loss < chosen(30).loss


@pytest.mark.parametrize("seconds", [10, 100, 1000])
def test_the_time_is_used(seconds: float) -> None:
    size = chosen(seconds)
    assert 0.97 * seconds <= size.seconds <= seconds
    assert size.batch % 256 == 0


def test_a_small_text_is_used_up() -> None:
    size = chosen(3_600, text=SMALL)
    assert size.seconds < 3_600
    assert size.steps * size.batch <= USEFUL_PASSES * SMALL.unique
    assert size.dropout > 0
    assert size.shape.parameters < chosen(3_600).shape.parameters


def test_what_does_not_fit_is_left_out() -> None:
    machine = Machine(1e13, memory=2e6)
    size = choose(600, STDLIB, Kept(), machine)
    assert size is not None and work(size.shape, 4096) <= 2e6
    assert choose(600, STDLIB, Kept(), Machine(1e13, memory=1.0)) is None


def test_not_every_width_is_measured() -> None:
    machine = Machine(1e10)
    choose(60, STDLIB, Kept(), machine)
    assert machine.asked == sorted(machine.asked) and len(machine.asked) < 6


def test_what_the_user_has_chosen() -> None:
    size = chosen(300, kept=Kept(d_model=192, n_layers=3, batch=4096, dropout=0.25))
    assert size.shape == Shape(192, 3, 3)
    assert (size.batch, size.dropout) == (4096, 0.25)
    assert chosen(300, kept=Kept(n_heads=5)).shape.d_model % 10 == 0
    grouped = shapes(Kept(n_kv_heads=3))
    assert grouped and all(s.n_heads % 3 == 0 == s.d_model % (2 * s.n_heads) for s in grouped)
    assert not shapes(Kept(n_heads=4, n_kv_heads=3))
    heads = {d: shapes(Kept(d_model=d))[0].n_heads for d in (33, 96, 100, 254, 320)}
    assert heads == {33: 1, 96: 3, 100: 2, 254: 1, 320: 5}  # none leaves an odd rest
    assert shapes(Kept(d_model=64, n_layers=0, n_heads=0)) == [Shape(64, 0, 0)]  # refused later


def test_a_batch_holds_the_whole_text_at_most() -> None:
    assert chosen(3_600, text=SMALL, kept=Kept(steps=5)).batch == 157 * 256
    machine = Machine(1e11)
    positions = list[int]()

    def cost(shape: Shape, asked: int) -> Cost | None:
        positions.append(asked)
        return machine(shape, asked)

    choose(60, SMALL, Kept(batch=10**9), cost)  # as asked, but timed without its padding
    assert set(positions) == {157 * 256}


def test_steps_the_user_has_chosen_take_the_time() -> None:
    size = chosen(300, kept=Kept(steps=500))
    assert size.steps == 500 and 200 < size.seconds <= 330
    many = chosen(1, kept=Kept(steps=100_000))  # which cannot be: the smallest
    assert many.shape == shapes(Kept())[0] and math.isinf(many.loss)


def test_batches_and_rates_at_the_default_run() -> None:
    assert batch_size(4.2e6, 256) == batch_size(1e6, 256) == 2048 > batch_size(5e5, 256)
    assert batch_size(1.0, 256) == 256
    assert batch_size(4.2e6 * 32, 256) == pytest.approx(2048 * 32**0.38, abs=128)
    assert learning_rates(2048, 128) == (0.006, 0.015)
    adamw, muon = learning_rates(512, 512)
    assert (adamw, muon) == (pytest.approx(0.0015), pytest.approx(0.0075))


def test_dropout_grows_with_passes() -> None:
    rates = [dropout(passes) for passes in (0.5, 4, 8, 100)]
    assert rates == sorted(rates) and rates[0] == 0 < rates[-1] < 0.5


def test_tokens_read_again_are_worth_less() -> None:
    assert LAW.effective(1e6, 1e6) == 1e6
    assert 1e6 < LAW.effective(2e6, 1e6) < 2e6
    assert LAW.effective(1e12, 1e6) == pytest.approx(1e6 * (1 + LAW.half_life))
    assert LAW.useful(10.0, 1e6) == pytest.approx(10.0)
    assert LAW.useful(1e12, 1e6) == pytest.approx(6.3 * LAW.teaches * 1e6)


def test_steps_without_cost_in_between() -> None:
    size = size_at(10, STDLIB, Kept(), Shape(64, 4, 2), Cost(0.0, 1e-5))
    assert size.steps == pytest.approx(10 / (1e-5 * size.batch), abs=1)


def test_the_constants_are_those_of_the_ladder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import ladder

    records = ladder.records()
    law, error = ladder.fit(records)
    assert law == LAW
    assert error < 0.1
    assert len({record["text"] for record in records}) == 3
    for record in records:
        assert set(json.loads(Path(ladder.LADDER).read_text().splitlines()[0])) == set(record)
