"""Measurements of the machine: matrix product rate, peak memory, compiled graphs, cores in use."""

import os
import sys
import time
from pathlib import Path

import torch

from lightning_embed.library_internals import graphs_compiled as counted_graphs

MATRIX = {"cpu": 1024, "cuda": 8192}  # rows and columns of the product that is timed


def training_dtype(precision: str, device: torch.device) -> torch.dtype:
    """What a trainer of this precision, as Lightning names it, multiplies in."""
    if precision.startswith("16") and device.type != "cpu":
        return torch.float16
    if precision.startswith(("bf16", "16")):  # a CPU takes 16-mixed for bf16-mixed
        return torch.bfloat16
    return torch.float64 if precision.startswith("64") else torch.float32


def matrix_rate(device: torch.device, dtype: torch.dtype, repeats: int = 3) -> float:
    """Floating-point operations a second of a large square product, best of a few.

    The denominator of MFU: what this device does, with these threads, when it does nothing else.
    Tens of milliseconds.
    """
    size = MATRIX.get(device.type, 1024)
    square = torch.ones(size, size, device=device, dtype=dtype)
    calls = 1 if device.type == "cpu" else 10  # enough that launching them does not count

    def seconds() -> float:
        _wait(device)
        began = time.perf_counter()
        for _ in range(calls):
            square @ square
        _wait(device)
        return time.perf_counter() - began

    seconds()  # warm-up: the first call selects a kernel
    return 2 * size**3 * calls / min(seconds() for _ in range(repeats))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> int | None:
    """Bytes: on a GPU the most that tensors took, else the most this process had resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def graphs_compiled() -> int:
    """Graphs that torch.compile has made in this process; asking imports nothing."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return 0 if dynamo is None else counted_graphs(dynamo)


class Neighbours:
    """How many of the cores that this process may use others keep busy; Linux only.

    Others are all processes but this one: also its data workers and the other ranks.
    """

    def __init__(self) -> None:
        try:
            self._mine = os.sched_getaffinity(0)
        except AttributeError:  # not on every platform
            self._mine = set()
        self.cores = len(self._mine)
        self._last = self._reading()

    def _reading(self) -> tuple[float, float, float]:
        """Seconds: on the clock, of all work on these cores, of this process' own."""
        busy = 0.0
        try:
            lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
        except OSError:
            lines = []
        for name, *ticks in (line.split() for line in lines):
            if name.removeprefix("cpu").isdecimal() and int(name[3:]) in self._mine:
                user, nice, system, _, _, irq, softirq = map(int, ticks[:7])  # not idle, nor iowait
                busy += (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), busy, time.process_time()

    def __call__(self) -> float:
        """Cores' worth of others' work since the last call, or since the beginning."""
        before, now = self._last, self._reading()
        self._last = now
        passed, busy, own = (b - a for a, b in zip(before, now, strict=True))
        return max(0.0, busy - own) / passed
