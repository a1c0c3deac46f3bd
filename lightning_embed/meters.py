"""Readings: how fast a device multiplies, the most memory used, how many graphs were compiled.

Knows: how to take them cheaply. Leaves to others: what is compared with them.
"""

import sys
import time

import torch

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
    calls = 1 if device.type == "cpu" else 10  # launching them must not show

    def seconds() -> float:
        _wait(device)
        began = time.perf_counter()
        for _ in range(calls):
            square @ square
        _wait(device)
        return time.perf_counter() - began

    seconds()  # the first call chooses a kernel
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
    return 0 if dynamo is None else int(dynamo.counters["stats"]["unique_graphs"])
