"""The summed loss, forward and backward: our chunked one, torch's, and plain logits.

    python benchmarks/loss.py

Time at the default shape (2,048 positions, width 256, 4,096 words, bfloat16 autocast), median of
interleaved repeats; peak memory at 8,192 positions and 50,257 words, each in a process of its own.
"""

import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from results import Measured, Row, record
from torch import Tensor

from lightning_embed.model.loss import chunk_loss_to_compile, cross_entropy_sum, padding_bias

REPEATS = 15
SETTINGS = {
    "plain": "all logits, then F.cross_entropy",
    "ours": "cross_entropy_sum, eager",
    "ours_compiled": "cross_entropy_sum, its chunks compiled",
    "torchs": "F.linear_cross_entropy",
}


def ours(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy_sum(hidden, weight, targets, 1)


def ours_compiled(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy_sum(
        hidden, weight, targets, 1, torch.compile(chunk_loss_to_compile, dynamic=True)
    )


def plain(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    logits = F.linear(hidden, weight, padding_bias(weight, 1)).float()
    return F.cross_entropy(logits, targets, reduction="sum")


def torchs(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    options = torch.nn.LinearCrossEntropyOptions(acc_policy="accurate")
    low = weight.bfloat16()
    bias = padding_bias(low, 1)
    return F.linear_cross_entropy(
        hidden.bfloat16(), low, targets, linear_bias=bias, reduction="sum", options=options
    )


def variants() -> dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]]:
    found = {"plain": plain, "ours": ours, "ours_compiled": ours_compiled}
    if hasattr(F, "linear_cross_entropy"):
        found["torchs"] = torchs
    return found


def data(n: int, d: int, v: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(n, d, requires_grad=True)
    weight = (torch.randn(v, d) / d**0.5).requires_grad_()
    return hidden, weight, torch.randint(2, v, (n,))


def once(loss: Callable[[Tensor, Tensor, Tensor], Tensor], args: tuple[Tensor, ...]) -> float:
    for tensor in args[:2]:
        tensor.grad = None
    began = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(*args)
    value.backward()
    return time.perf_counter() - began


def peak_memory(name: str) -> float:
    """MiB beyond the inputs at their highest, of one forward and backward."""
    code = f"import loss; loss.report_memory({name!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=sys.path[0]
    )
    return float(done.stdout.split()[-1])


def report_memory(name: str) -> None:
    small = data(64, 256, 512)
    for _ in range(2):
        once(variants()[name], small)  # libraries and compiled code are loaded now
    args = data(8192, 256, 50257)
    # Sampled, as the high-water mark would still be that of loading and compiling.
    before, peak, done = resident(), [0.0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], resident())
            time.sleep(0.001)

    thread = threading.Thread(target=watch)
    thread.start()
    once(variants()[name], args)
    done.set()
    thread.join()
    print(peak[0] - before)


def resident() -> float:
    """MiB of memory this process has now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    args = data(2048, 256, 4096)
    times: dict[str, list[float]] = {name: [] for name in variants()}
    for loss in variants().values():
        for _ in range(3):
            once(loss, args)
    for _ in range(REPEATS):
        for name, loss in variants().items():
            times[name].append(once(loss, args))
    memory = {name: peak_memory(name) for name in times}
    middle = {name: statistics.median(values) for name, values in times.items()}

    def measured(name: str, unit: str, value: float) -> Measured:
        return Measured(SETTINGS[name], {unit: value})

    rows = []
    for name in times:
        if name != "plain":
            ours, plain = (measured(n, "ms", 1000 * middle[n]) for n in (name, "plain"))
            rows.append(Row(f"{name}, time", ours, plain, middle[name] / middle["plain"]))
            ours, plain = (measured(n, "MiB", memory[n]) for n in (name, "plain"))
            rows.append(Row(f"{name}, peak memory", ours, plain, memory[name] / memory["plain"]))
    how = (
        f"bfloat16 autocast, width 256. Time: 2,048 positions, 4,096 words, median of {REPEATS}"
        " interleaved repeats. Memory: 8,192 positions, 50,257 words."
    )
    record("loss", how, rows)


if __name__ == "__main__":
    main()
