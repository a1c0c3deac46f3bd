"""Readings are plausible, cheap, and of what they say."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_embed.watching import meters
from lightning_embed.watching.meters import (
    Neighbours,
    matrix_rate,
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


@pytest.fixture(scope="module")
def fresh() -> dict[str, Any]:
    """Readings of a process that has done nothing else before."""
    program = """if True:
        import json, sys, torch
        from lightning_embed.watching.meters import graphs_compiled, peak_memory
        graphs = [graphs_compiled()]
        compiler = "torch._dynamo" in sys.modules
        before = peak_memory(torch.device("cpu"))
        there = torch.ones(2 * before // 4)  # float32: more than the process ever had
        peak = peak_memory(torch.device("cpu")) - before
        function = torch.compile(lambda x: x + 1, backend="eager")
        for ids in (torch.ones(2), torch.ones(2), torch.ones(2, dtype=torch.int32)):
            function(ids)
            graphs.append(graphs_compiled())
        print(json.dumps({"graphs": graphs, "compiler": compiler, "peak": peak / before}))
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_peak_memory_sees_what_was_touched(fresh: dict[str, Any]) -> None:
    assert 1 < fresh["peak"] < 3  # twice what there was, beside what is there no more


def test_graphs_are_counted_without_importing_the_compiler(fresh: dict[str, Any]) -> None:
    assert not fresh["compiler"]
    assert fresh["graphs"] == [0, 1, 1, 2]


IDLE = "cpu  9 9 9 9 9 9 9 0 0 0\n" + "".join(f"cpu{n} 0 0 0 0 0 0 0 0 0 0\n" for n in range(3))
# user nice system | idle iowait | irq softirq | those of guests: hundredths of seconds
BUSY = """cpu  9 9 9 9 9 9 9 0 0 0
cpu0 600 0 0 350 50 0 0 0 0 0
cpu1 0 50 200 450 50 100 150 0 0 0
cpu2 1000 0 0 0 0 0 0 0 0 0
intr 5 5 5
"""


def test_work_of_other_processes_on_ones_own_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """In 10 seconds the first core works for 6 and the second for 5, this process for 4 of them;
    the third is not for us."""

    def show(stat: str, now: float, own: float) -> None:
        clocks = SimpleNamespace(perf_counter=lambda: now, process_time=lambda: own)
        monkeypatch.setattr(meters, "time", clocks)
        monkeypatch.setattr(meters.Path, "read_text", lambda path, **_: stat)

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    monkeypatch.setattr(os, "sysconf", {"SC_CLK_TCK": 100}.__getitem__, raising=False)
    show(IDLE, 1.0, 0.5)
    neighbours = Neighbours()
    show(BUSY, 11.0, 4.5)
    assert neighbours.cores == 2
    assert neighbours() == pytest.approx((6 + 5 - 4) / 10)


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="Linux only")
def test_this_systems_figures_are_understood() -> None:
    assert Neighbours()._reading()[1] > 0


def test_neighbours_where_nothing_can_be_read(monkeypatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert Neighbours()() == 0.0
