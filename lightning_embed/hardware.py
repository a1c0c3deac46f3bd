"""What this machine has, cores and memory, and settings that follow from it."""

import ctypes
import os
from pathlib import Path

import torch

from lightning_embed.errors import UserError

BYTES_PER_PARAMETER = 16  # float32 weight, gradient and two moments


def core_quota(
    cgroups: Path = Path("/sys/fs/cgroup"), process: Path = Path("/proc/self")
) -> float | None:
    """Cores' worth of time that a container may use, which nothing else in Python or torch knows
    of; None without a limit.

    Linux control groups of both versions, this process' own and all around it: the least counts.

    Args:
        cgroups, process: where the kernel tells of them.
    """
    found = []
    for line in _read(process / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":  # version 2 has one tree
            tree, quota = cgroups, _quota_of_version_2
        elif "cpu" in controllers.split(","):
            tree, quota = cgroups / controllers, _quota_of_version_1
            tree = tree if tree.is_dir() else cgroups / "cpu"
        else:
            continue
        inner = tree / path.lstrip("/")
        for folder in (inner, *inner.parents):
            if folder == tree or tree in folder.parents:
                found.append(quota(folder))
    return min((cores for cores in found if cores is not None), default=None)


def _quota_of_version_2(folder: Path) -> float | None:
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    return _cores(quota, period)


def _quota_of_version_1(folder: Path) -> float | None:
    return _cores(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _cores(quota: str, period: str) -> float | None:
    try:
        cores = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max", or no such file
        return None
    return cores if cores > 0 else None  # version 1 says -1 for no limit


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""


def settle_threads(processes: int = 1) -> None:
    """Take no more threads than there is time for: those that wait their turn hold up the others.

    Whoever sets OMP_NUM_THREADS decides alone.

    Args:
        processes: that share this machine's cores.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        threads = torch.get_num_threads()
        quota = core_quota()
        cores = threads if quota is None else min(threads, int(quota))
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
