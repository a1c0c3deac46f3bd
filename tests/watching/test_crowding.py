"""`Crowding` speaks once, when it lasts, and only where fewer threads would help."""

from types import SimpleNamespace

import pytest
import torch

from lightning_embed.watching import crowding
from lightning_embed.watching.crowding import Crowding


class Machine:
    """One whose other processes use as many cores as told, and a clock that moves when told."""

    cores = 2

    def __init__(self, taken: list[float]) -> None:
        self.taken, self.now = iter(taken), 0.0

    def __call__(self) -> float:
        return next(self.taken)

    def perf_counter(self) -> float:
        return self.now


def told(monkeypatch, capsys, taken, *, threads=2, device="cpu", seconds=6.0) -> str:
    machine = Machine(taken)
    monkeypatch.setattr(crowding, "Neighbours", lambda: machine)
    monkeypatch.setattr(crowding, "time", machine)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    callback = Crowding()
    callback.on_train_start(None, SimpleNamespace(device=torch.device(device)))
    for _ in taken:
        machine.now += seconds
        callback.on_train_batch_end()
    return capsys.readouterr().out


def test_a_busy_neighbour_is_named_once_with_what_helps(monkeypatch, capsys) -> None:
    out = told(monkeypatch, capsys, [1.0] * 9)
    assert out.count("warning") == 1
    assert "1.0 of 2 cores" in out and "OMP_NUM_THREADS=1" in out


@pytest.mark.parametrize(
    ("taken", "other"),
    [
        ([0.1] * 9, {}),  # an idle machine
        ([1.0, 0.0] * 4, {}),  # bursts
        ([1.0] * 9, {"threads": 1}),  # one thread beside one neighbour fits
        ([2.0] * 9, {"threads": 1}),  # too little, but nothing to change
        ([1.0] * 9, {"device": "meta"}),  # not training on the CPU
        ([1.0] * 9, {"seconds": 0.5}),  # too short to be read
    ],
)
def test_otherwise_silent(monkeypatch, capsys, taken, other) -> None:
    assert told(monkeypatch, capsys, taken, **other) == ""
