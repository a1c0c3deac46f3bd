"""How the cost of `TokenEmbedding` grows, as fitted exponents: cost ~ size**exponent.

    python benchmarks/growth.py

Forward time against positions (B·S), width (D) and vocabulary (V), memory against V and D; and the
honest rest: a dense backward and an optimizer step touch the whole matrix and grow with V. The
range of ids is the same for every V: which rows are in the processor's cache is a matter of the
text, not of the vocabulary; ids drawn from all of V are given beside it.
"""

import ctypes
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch
from results import Measured, Row, record
from torch import Tensor

from lightning_embed import TokenEmbedding

ROUNDS, REPEATS = 15, 20
USED = 64  # ids that occur: few, so that the widest rows too are in the cache


def keep_freed_memory() -> None:
    """Else glibc returns large blocks to the system, and fresh pages cost more than the lookup."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            libc.mallopt(option, 2**30)


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Slope of log cost over log size, least squares."""
    x, y = [math.log(s) for s in sizes], [math.log(c) for c in costs]
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    top = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return top / sum((a - mean_x) ** 2 for a in x)


def times(cases: list[Callable[[], object]]) -> list[float]:
    """Seconds of each, the quickest of interleaved repeats: neighbours only ever add, and each
    finds the cache as another left it."""
    found = [math.inf] * len(cases)
    for case in reversed(cases):  # the largest first, so that memory for all is at hand
        case()
    for _ in range(REPEATS):
        for number, case in enumerate(cases):
            began = time.perf_counter()
            case()
            found[number] = min(found[number], time.perf_counter() - began)
    return found


def forward(vocabulary: int, width: int, positions: int, used: int = USED) -> Callable[[], object]:
    embedding = TokenEmbedding(vocabulary, width)
    ids = torch.randint(2, used, (positions,))

    @torch.no_grad()
    def run() -> Tensor:
        return embedding(ids)

    return run


def backward(vocabulary: int) -> Callable[[], object]:
    embedding = TokenEmbedding(vocabulary, 64)
    ids = torch.randint(2, USED, (4, 64))

    def run() -> None:
        embedding.weight.grad = None
        embedding(ids).sum().backward()

    return run


def step(vocabulary: int) -> Callable[[], object]:
    embedding = TokenEmbedding(vocabulary, 64)
    optimizer = torch.optim.AdamW(embedding.parameters(), fused=True)
    embedding.weight.grad = torch.ones_like(embedding.weight)
    return optimizer.step


def held(vocabulary: int, width: int) -> int:
    """Bytes of everything an embedding keeps."""
    kept = TokenEmbedding(vocabulary, width).state_dict(keep_vars=True).values()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept)


def row(
    what: str,
    by: str,
    sizes: Sequence[int],
    case: Callable[[int], Callable[[], object]],
    expected: str,
) -> Row:
    """Medians over rounds, of costs and of the exponents fitted to them."""
    cases = [case(size) for size in sizes]
    rounds = [times(cases) for _ in range(ROUNDS)]
    middle = [statistics.median(column) for column in zip(*rounds, strict=True)]
    fitted = statistics.median(exponent(sizes, costs) for costs in rounds)
    return grown(what, by, sizes, fitted, expected, "µs", [1e6 * cost for cost in middle])


def grown(
    what: str,
    by: str,
    sizes: Sequence[int],
    fitted: float,
    expected: str,
    unit: str,
    costs: Sequence[float],
) -> Row:
    values = {"the exponent": fitted, f"{unit} at first": costs[0], f"{unit} at last": costs[-1]}
    against = f"{what} against {by} from {sizes[0]:,} to {sizes[-1]:,}, expected {expected}"
    return Row(against, Measured("", values))


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    keep_freed_memory()
    # Outputs of 8 to 64 MiB: below, the call itself (some 80 µs) is part of what is measured, and
    # from 2,048 positions on the exponent comes out at 0.75 to 0.98.
    positions = [8_192, 16_384, 32_768, 65_536]
    widths = [64, 128, 256, 512, 768]
    vocabularies = [4_000, 8_000, 16_000, 32_000, 64_000]
    rows = [
        row("forward", "B·S", positions, lambda n: forward(2_000, 256, n), "1"),
        row("forward", "D", widths, lambda d: forward(2_000, d, 8192), "1"),
        row("forward, same ids", "V", vocabularies, lambda v: forward(v, 256, 4096), "0"),
        row(
            "forward, ids from all of V",
            "V",
            vocabularies,
            lambda v: forward(v, 256, 4096, v),
            "cache misses",
        ),
    ]
    for by, sizes, kept in (
        ("V", vocabularies, [held(v, 256) for v in vocabularies]),
        ("D", widths, [held(2_000, d) for d in widths]),
    ):
        mib = [size / 2**20 for size in kept]
        rows.append(grown("memory", by, sizes, exponent(sizes, kept), "1", "MiB", mib))
    rows.append(row("dense backward", "V", vocabularies, backward, "growth, towards 1"))
    rows.append(row("AdamW step", "V", vocabularies, step, "growth, towards 1"))
    record("growth", f"Medians of {ROUNDS} rounds, each the quickest of {REPEATS} calls.", rows)


if __name__ == "__main__":
    main()
