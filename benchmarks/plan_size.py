"""The plan of an epoch for 10 million documents: seconds and peak memory on one core.

    python benchmarks/plan_size.py

Lengths are log-normal, as those of stories and web pages are: a mean of 41 tokens, where nearly
every document is one window, and one of 206, where a third is cut into several. Each plan is made
in a process of its own that does only that, cutting the windows included; what importing takes
there is given beside it. Unix only.
"""

import resource
import subprocess
import sys
import time

import numpy as np
from results import Measured, Row, record

from lightning_embed.data.plan import BatchSettings, plan_epoch
from lightning_embed.data.windows import cut_windows

DOCUMENTS, MAX_LENGTH, TOKENS_PER_BATCH = 10_000_000, 256, 2_048
MEDIANS = (30, 150)
SECONDS, MIB = 10, 1024  # limits


def peak() -> float:
    """MiB this process has had in memory at its highest."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts in bytes, Linux in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def draw_offsets(median: int) -> np.ndarray:
    """`(documents + 1,)` where made-up documents begin; drawn in pieces, to leave no peak."""
    draw = np.random.default_rng(0)
    offsets = np.zeros(DOCUMENTS + 1, np.int64)
    for piece in np.array_split(offsets[1:], 100):
        piece[:] = np.exp(draw.normal(np.log(median), 0.8, len(piece))).clip(2, 8_000)
    return np.cumsum(offsets, out=offsets)


def report(median: int) -> None:
    imports = peak()
    offsets = draw_offsets(median)
    settings = BatchSettings(TOKENS_PER_BATCH, tuple(range(32, MAX_LENGTH + 1, 32)))
    began = time.perf_counter()
    windows = cut_windows(offsets, MAX_LENGTH)
    plan = plan_epoch(windows, settings, seed=42, epoch=0)
    took = time.perf_counter() - began
    print(f"{offsets[-1] / DOCUMENTS:.0f} {len(windows)} {len(plan)} {took} {peak()} {imports}")


def main() -> None:
    import torch  # not above: the processes that are measured import this file

    torch.set_num_threads(1)  # what a record says of the machine
    rows, failed = [], []
    for median in MEDIANS:
        code = f"import plan_size; plan_size.report({median})"
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=sys.path[0],
        )
        mean, windows, batches, took, highest, imports = map(float, done.stdout.split())
        values = {"s": took, "MiB at most": highest, "MiB of it imports": imports}
        values |= {"windows": int(windows), "batches": int(batches)}
        rows.append(Row(f"documents of {mean:.0f} tokens in the mean", Measured("", values)))
        if took > SECONDS or highest > MIB:
            failed.append(f"a mean of {mean:.0f} tokens: {took:.1f} s, {highest:.0f} MiB")
    how = (
        f"Windows of {MAX_LENGTH}, batches of {TOKENS_PER_BATCH:,} tokens, 8 widths, one core;"
        f" limits {SECONDS} s and {MIB:,} MiB."
    )
    record("plan_size", how, rows)
    if failed:
        raise SystemExit(f"over the limit: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
