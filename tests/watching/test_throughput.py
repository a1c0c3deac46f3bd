"""`Throughput` counts real tokens, and only time that training took."""

from types import SimpleNamespace

import pytest
import torch

from lightning_embed.data.batch import Batch, Filler
from lightning_embed.data.loader import PlanLoader
from lightning_embed.data.plan import BatchSettings
from lightning_embed.watching import throughput
from lightning_embed.watching.throughput import Throughput


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)
    return clock


def batch(targets: int, positions: int, pairs: int = 0) -> Batch:
    empty = torch.zeros(0)
    return Batch(empty, empty, empty, empty, targets, positions, pairs)


def train(
    counter: Throughput, clock: Clock, sizes, *, accumulate: int = 1, wait: float = 1.0
) -> None:
    """Each micro-batch is waited for `wait` seconds, is handed about for 1 and takes 3."""
    loader = SimpleNamespace(waited=50.0)
    trainer = SimpleNamespace(accumulate_grad_batches=accumulate, train_dataloader=loader)
    for number, size in enumerate(sizes):
        loader.waited += wait
        clock.now += wait + 1
        counter.on_train_batch_start(trainer, None, batch(*size), number)
        clock.now += 3
        counter.on_train_batch_end(trainer, None, None, batch(*size), number)


def test_real_tokens_padding_and_waiting(clock) -> None:
    counter = Throughput()
    train(counter, clock, [(80, 100), (40, 100)], wait=2)
    figures = counter.close_interval()
    # The wait before the first batch has no beginning that was seen: 3 + 2 + 1 + 3 seconds.
    assert figures["tokens_per_s"] == pytest.approx(120 / 9)
    assert figures["padding"] == pytest.approx(0.4)
    assert figures["data_wait"] == pytest.approx(2 / 9)


def test_a_global_batch_counts_once_however_it_is_split(clock) -> None:
    """Every micro-batch carries the figures of its whole global batch."""
    counter = Throughput()
    train(counter, clock, [(80, 100), (80, 100), (40, 60), (40, 60)], accumulate=2)
    figures = counter.close_interval()
    assert (counter.total.tokens, counter.total.positions) == (120, 160)
    assert figures["tokens_per_s"] == pytest.approx(120 / (4 * 3 + 3 * 2))
    assert figures["padding"] == pytest.approx(0.25)


def test_validation_is_not_waiting_for_data(clock) -> None:
    counter = Throughput()
    train(counter, clock, [(80, 100)])
    counter.on_validation_start(None, None)
    clock.now += 1000
    train(counter, clock, [(80, 100)], wait=500)
    figures = counter.close_interval()
    assert figures["data_wait"] == 0
    assert figures["tokens_per_s"] == pytest.approx(160 / 6)


def test_intervals_are_apart_and_the_whole_run_is_not(clock) -> None:
    counter = Throughput()
    assert counter.whole_run() == {}
    train(counter, clock, [(80, 100)])
    counter.close_interval()
    train(counter, clock, [(10, 100)])
    assert counter.close_interval()["padding"] == pytest.approx(0.9)
    assert counter.whole_run()["padding"] == pytest.approx(0.55)
    assert counter.whole_run()["tokens_per_s"] == pytest.approx(90 / 6)


def test_a_skipped_interval_counts_for_nothing(clock) -> None:
    counter = Throughput()
    train(counter, clock, [(1, 100)])
    counter.skip()
    train(counter, clock, [(80, 100)])
    assert counter.close_interval()["padding"] == pytest.approx(0.2)
    assert counter.whole_run()["padding"] == pytest.approx(0.2)


def test_an_empty_interval_has_no_figures_and_changes_none(clock) -> None:
    counter = Throughput()
    assert counter.close_interval() == {}
    train(counter, clock, [(80, 100)])
    figures = counter.close_interval()
    assert counter.close_interval() == {}
    assert counter.whole_run() == figures


def test_flops_are_those_of_real_tokens_beside_the_measured_rate(clock, monkeypatch) -> None:
    asked = []

    def rate(device: torch.device, dtype: torch.dtype) -> float:
        asked.append((device.type, dtype))
        return 1000.0

    monkeypatch.setattr(throughput, "matrix_rate", rate)
    monkeypatch.setattr(throughput, "peak_memory", lambda device: 5)
    network = SimpleNamespace(training_flops=lambda tokens, pairs: 10 * tokens + pairs)
    module = SimpleNamespace(device=torch.device("cpu"), network=network)
    counter = Throughput()
    counter.on_train_start(SimpleNamespace(precision="bf16-mixed", world_size=2), module)
    assert asked == [("cpu", torch.bfloat16)]
    assert counter.matrix_rate == 2000  # of both processes together
    train(counter, clock, [(80, 100, 100)])
    figures = counter.close_interval()
    assert figures["flops_per_s"] == pytest.approx(900 / 3)
    assert figures["mfu"] == pytest.approx(0.15)
    assert figures["peak_memory"] == 5


def test_the_loader_knows_how_long_it_was_waited_for(make_rows, monkeypatch) -> None:
    clock = Clock()
    rows = make_rows([5] * 8, max_length=8)
    make = Filler.__getitem__

    def slow(self, share):
        clock.now += 2
        return make(self, share)

    monkeypatch.setattr(Filler, "__getitem__", slow)
    monkeypatch.setattr("lightning_embed.data.loader.time", clock)
    loader = PlanLoader(rows, BatchSettings(16, (8,)), seed=0, shuffle=True)
    for _ in loader:
        clock.now += 10
    assert loader.waited == pytest.approx(2 * 4)
