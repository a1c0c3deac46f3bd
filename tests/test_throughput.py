"""`Throughput` counts real tokens, and only time that training took."""

from types import SimpleNamespace

import pytest
import torch

from lightning_embed.batching import Batch
from lightning_embed.callbacks import throughput
from lightning_embed.callbacks.throughput import Throughput


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


def batch(targets: int, positions: int) -> Batch:
    empty = torch.zeros(0)
    return Batch(empty, empty, empty, empty, targets, positions)


def train(
    counter: Throughput, clock: Clock, sizes, *, accumulate: int = 1, wait: float = 1.0
) -> None:
    """Each micro-batch is waited for `wait` seconds and takes 3."""
    trainer = SimpleNamespace(accumulate_grad_batches=accumulate)
    for number, size in enumerate(sizes):
        clock.now += wait
        counter.on_train_batch_start(trainer, None, batch(*size), number)
        clock.now += 3
        counter.on_train_batch_end(trainer, None, None, batch(*size), number)


def test_real_tokens_padding_and_waiting(clock) -> None:
    counter = Throughput()
    train(counter, clock, [(80, 100), (40, 100)])
    figures = counter.close_interval()
    # The wait before the first batch has no beginning that was seen: 3 + 1 + 3 seconds.
    assert figures["tokens_per_s"] == pytest.approx(120 / 7)
    assert figures["padding"] == pytest.approx(0.4)
    assert figures["data_wait"] == pytest.approx(1 / 7)
    assert (counter.total_tokens, counter.total_positions) == (120, 200)


def test_a_global_batch_counts_once_however_it_is_split(clock) -> None:
    """Every micro-batch carries the figures of its whole global batch."""
    counter = Throughput()
    train(counter, clock, [(80, 100), (80, 100), (40, 60), (40, 60)], accumulate=2)
    assert (counter.total_tokens, counter.total_positions) == (120, 160)
    figures = counter.close_interval()
    assert figures["tokens_per_s"] == pytest.approx(120 / (4 * 3 + 3 * 1))
    assert figures["padding"] == pytest.approx(0.25)


def test_validation_is_not_waiting_for_data(clock) -> None:
    counter = Throughput()
    train(counter, clock, [(80, 100)])
    counter.on_validation_start(None, None)
    clock.now += 1000
    train(counter, clock, [(80, 100)])
    figures = counter.close_interval()
    assert figures["data_wait"] == 0
    assert figures["tokens_per_s"] == pytest.approx(160 / 6)


def test_intervals_are_apart_and_totals_are_not(clock) -> None:
    counter = Throughput()
    train(counter, clock, [(80, 100)])
    counter.close_interval()
    train(counter, clock, [(10, 100)])
    assert counter.close_interval()["padding"] == pytest.approx(0.9)
    assert counter.total_tokens == 90


def test_a_skipped_interval_counts_for_nothing_but_the_totals(clock) -> None:
    counter = Throughput()
    train(counter, clock, [(1, 100)])
    counter.skip()
    train(counter, clock, [(80, 100)])
    assert counter.close_interval()["padding"] == pytest.approx(0.2)
    assert counter.total_tokens == 81


def test_an_empty_interval_keeps_the_last_figures(clock) -> None:
    counter = Throughput()
    assert counter.close_interval() == {}
    train(counter, clock, [(80, 100)])
    figures = dict(counter.close_interval())
    assert counter.close_interval() == figures
