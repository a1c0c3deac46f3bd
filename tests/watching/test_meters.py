"""Readings are plausible, cheap, and of what they say."""

import os
import subprocess
import sys
import time

import pytest
import torch

from lightning_embed.watching import meters
from lightning_embed.watching.meters import (
    Neighbours,
    graphs_compiled,
    matrix_rate,
    peak_memory,
    training_dtype,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("precision", "device", "dtype"),
    [
        ("bf16-mixed", CPU, torch.bfloat16),
        ("bf16-true", GPU, torch.bfloat16),
        ("16-mixed", GPU, torch.float16),
        ("16-mixed", CPU, torch.bfloat16),
        ("32-true", CPU, torch.float32),
        ("32", GPU, torch.float32),
        ("64-true", CPU, torch.float64),
    ],
)
def test_a_precision_multiplies_in(precision, device, dtype) -> None:
    assert training_dtype(precision, device) == dtype


def test_the_matrix_rate_is_that_of_the_best_repeat(monkeypatch) -> None:
    times = iter([0, 9, 10, 14, 20, 22, 30, 33])  # warm-up, then 4, 2 and 3 seconds

    class Clock:
        perf_counter = staticmethod(lambda: next(times))

    monkeypatch.setattr(meters, "time", Clock)
    monkeypatch.setitem(meters.MATRIX, "cpu", 10)
    assert matrix_rate(CPU, torch.float32) == 2 * 10**3 / 2


def test_peak_memory_sees_what_was_touched() -> None:
    before = peak_memory(CPU)
    assert before is not None
    there = torch.ones(2 * before // 4 + 2**20)  # float32: more than the process ever had
    assert peak_memory(CPU) > before + 2 * before * 0.5
    del there


def test_graphs_are_counted_without_importing_the_compiler() -> None:
    code = (
        "import sys; from lightning_embed.watching.meters import graphs_compiled as g\n"
        "assert g() == 0 and 'torch._dynamo' not in sys.modules\n"
        "import torch; f = torch.compile(lambda x: x + 1, backend='eager')\n"
        "f(torch.ones(2)); assert g() == 1, g()\n"
        "f(torch.ones(2)); assert g() == 1, g()\n"
        "f(torch.ones(2, dtype=torch.int32)); assert g() == 2, g()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert graphs_compiled() >= 0


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux only")
def test_work_of_another_process_is_seen_and_ones_own_is_not() -> None:
    def work(seconds: float) -> None:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            pass

    neighbours = Neighbours()
    assert neighbours.cores == len(os.sched_getaffinity(0))
    work(0.5)
    alone = neighbours()
    busy = "import time; t = time.time()\nwhile time.time() < t + 60: pass"
    with subprocess.Popen([sys.executable, "-c", busy]) as other:
        try:
            time.sleep(0.2)
            neighbours()
            time.sleep(0.5)
            beside = neighbours()
        finally:
            other.kill()
    # Whoever else works here does so in both readings, give or take.
    assert beside > 0.5 and beside > alone - 0.2


def test_neighbours_where_nothing_can_be_read(monkeypatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert Neighbours()() == 0.0
