"""What this machine has, cores and memory, and settings that follow from it."""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import torch

CGROUPS, PROCESS = Path("/sys/fs/cgroup"), Path("/proc/self")  # where the kernel tells of them


def core_quota(cgroups: Path = CGROUPS, process: Path = PROCESS) -> float | None:
    """Cores' worth of time that a container may use, which nothing else in Python or torch knows
    of; None without a limit.

    Args:
        cgroups, process: where the kernel tells of them.
    """
    return _least("cpu", _quota_of_version_2, _quota_of_version_1, cgroups, process)


def _least(
    controller: str,
    version_2: Callable[[Path], float | None],
    version_1: Callable[[Path], float | None],
    cgroups: Path,
    process: Path,
) -> float | None:
    """What Linux control groups of both versions allow, this process' own and all around it: the
    least counts."""
    found = []
    for line in _read(process / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":  # version 2 has one tree
            tree, allowed = cgroups, version_2
        elif controller in controllers.split(","):
            tree, allowed = cgroups / controllers, version_1
            tree = tree if tree.is_dir() else cgroups / controller
        else:
            continue
        inner = tree / path.lstrip("/")
        for folder in (inner, *inner.parents):
            if folder == tree or tree in folder.parents:
                found.append(allowed(folder))
    return min((limit for limit in found if limit is not None), default=None)


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


def free_memory(
    device: torch.device,
    cgroups: Path = CGROUPS,
    process: Path = PROCESS,
    meminfo: Path = Path("/proc/meminfo"),
    processes: int = 1,
) -> float | None:
    """Bytes that a process can still take: of the GPU, else of the machine and of what its control
    groups leave. Without Linux all of the machine's memory; None where nothing tells.

    Args:
        device: where training takes place.
        cgroups, process, meminfo: where the kernel tells of them.
        processes: that share this machine's memory; each has a GPU of its own.
    """
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + kept
    available = _figures(meminfo).get("MemAvailable:")
    limits = (
        _memory() if available is None else 1024 * available,
        _least("memory", _room_of_version_2, _room_of_version_1, cgroups, process),
    )
    return min((limit / processes for limit in limits if limit is not None), default=None)


def _memory() -> float | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not every platform tells
        return None


def _room_of_version_2(folder: Path) -> float | None:
    return _room(folder, "memory.max", "memory.current", "inactive_file")


def _room_of_version_1(folder: Path) -> float | None:
    return _room(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _room(folder: Path, limit: str, used: str, cache: str) -> float | None:
    """The limit less what is used; of that, files' cached pages are given up when needed."""
    try:
        left = int(_read(folder / limit)) - int(_read(folder / used))
    except ValueError:  # "max", or no such file
        return None
    return max(0.0, left + _figures(folder / "memory.stat").get(cache, 0))


def _figures(path: Path) -> dict[str, int]:
    """Numbers by name, one a line."""
    lines = (line.split() for line in _read(path).splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdecimal()}


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
