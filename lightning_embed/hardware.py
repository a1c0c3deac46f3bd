"""What this machine has: fast number formats, cores, memory; and settings that follow from it."""

import ctypes
import os
from pathlib import Path
from typing import NamedTuple

import torch

from lightning_embed.errors import UserError
from lightning_embed.library_internals import fast_bfloat16

BYTES_PER_PARAMETER = 16  # float32 weight, gradient and two moments


class Numbers(NamedTuple):
    """A precision as Lightning names it, and why it was taken."""

    precision: str
    reason: str


def suggested_precision(accelerator: str) -> Numbers:
    """Mixed bfloat16 where the hardware has it, mixed float16 on older GPUs, else float32."""
    if accelerator == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Numbers("bf16-mixed", "the GPU has bfloat16")
        return Numbers("16-mixed", "the GPU has float16 only")
    if accelerator == "cpu" and (units := fast_bfloat16()):
        return Numbers("bf16-mixed", f"the processor has {units}")
    return Numbers("32-true", "no fast bfloat16 found")


def core_quota() -> float | None:
    """Cores' worth of time that a container may use (Linux control groups, version 2), which
    nothing else in Python or torch knows of; None without a limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def settle_threads(processes: int = 1) -> None:
    """Take no more threads than there is time for: those that wait their turn hold up the others.

    Whoever sets OMP_NUM_THREADS decides alone.

    Args:
        processes: that share this machine's cores.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        threads = torch.get_num_threads()
        quota = core_quota()
        cores = threads if quota is None else min(threads, round(quota))
        torch.set_num_threads(max(1, cores // processes))


def keep_freed_memory() -> None:
    """Let glibc keep what is freed: a training step frees and allocates the same megabytes again,
    and a page given back costs a fault when it is next touched. Elsewhere does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    mallopt(mmap_threshold, 32 * 2**20)  # the most it takes; larger blocks are mapped all the same
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 64 * 2**20)


def require_memory(parameters: int) -> None:
    """Refuse a model whose training state alone is larger than the machine's memory.

    Raises:
        UserError: with both figures and the settings to lower.
    """
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not every platform tells
        return
    needed = parameters * BYTES_PER_PARAMETER
    if needed > memory:
        raise UserError(
            f"{parameters:,} parameters need {needed / 2**30:,.0f} GiB to train, this machine has"
            f" {memory / 2**30:,.0f} GiB: lower --model.n_layers or --model.d_model"
        )
