"""What the machine can do, with machines made up."""

import ctypes
from pathlib import Path

import pytest
import torch

from lightning_embed import hardware
from lightning_embed.hardware import (
    core_quota,
    free_memory,
    keep_freed_memory,
    settle_threads,
)


def kernel(root: Path, cgroup: str, files: dict[str, str]) -> tuple[Path, Path]:
    """Folders as the kernel shows them: control groups, and this process' own."""
    (root / "self").mkdir()
    (root / "self" / "cgroup").write_text(cgroup)
    for name, text in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "cgroup", root / "self"


V1 = "5:cpuset:/\n4:cpu,cpuacct:/docker/x\n"


@pytest.mark.parametrize(
    ("cgroup", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
        ("0::/\n", {}, None),
        # the group around this process' own has the limit, or the smaller one
        ("0::/pod/app\n", {"pod/cpu.max": "200000 100000", "pod/app/cpu.max": "max 100000"}, 2),
        ("0::/pod/app\n", {"pod/cpu.max": "400000 100000", "pod/app/cpu.max": "300000 100000"}, 3),
        (
            V1,
            {"cpu/docker/x/cpu.cfs_quota_us": "50000", "cpu/docker/x/cpu.cfs_period_us": "100000"},
            0.5,
        ),
        (
            V1,
            {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            None,
        ),
        (
            V1,
            {"cpu,cpuacct/cpu.cfs_quota_us": "250000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            2.5,
        ),
        ("", {"cpu.max": "100000 100000"}, None),
    ],
)
def test_a_containers_quota(tmp_path: Path, cgroup: str, files: dict[str, str], cores) -> None:
    assert core_quota(*kernel(tmp_path, cgroup, files)) == cores


CPU = torch.device("cpu")
STAT = "cache 500\ninactive_file {}\ntotal_inactive_file {}\n"


@pytest.mark.parametrize(
    ("cgroup", "files", "free"),
    [
        ("0::/\n", {}, 1_024_000),
        ("0::/\n", {"memory.max": "max\n", "memory.current": "5\n"}, 1_024_000),
        ("0::/\n", {"memory.max": "9000\n", "memory.current": "2000\n"}, 7_000),
        (
            "0::/a/b\n",
            {
                "a/memory.max": "9000",
                "a/memory.current": "7000",
                "a/memory.stat": STAT.format(1000, 9),
                "a/b/memory.max": "9999999",
                "a/b/memory.current": "0",
            },
            3_000,
        ),
        ("0::/\n", {"memory.max": "9000", "memory.current": "9500"}, 0),
        ("0::/\n", {"memory.max": "9000000", "memory.current": "0"}, 1_024_000),
        (
            "5:cpuset:/\n4:memory:/docker/x\n",
            {
                "memory/docker/x/memory.limit_in_bytes": "8000",
                "memory/docker/x/memory.usage_in_bytes": "6000",
                "memory/docker/x/memory.stat": STAT.format(9, 2000),
                "memory/memory.limit_in_bytes": str(2**63 - 4096),
                "memory/memory.usage_in_bytes": "6000",
            },
            4_000,
        ),
    ],
)
def test_free_memory(tmp_path: Path, cgroup: str, files: dict[str, str], free: int) -> None:
    where = kernel(tmp_path, cgroup, files)
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:   9000 kB\nMemFree:  10 kB\nMemAvailable:   1000 kB\n")
    assert free_memory(CPU, *where, meminfo) == free
    assert free_memory(CPU, *where, meminfo, processes=2) == free / 2


@pytest.mark.parametrize("tells", [True, False])
def test_free_memory_where_there_is_no_linux(tmp_path: Path, monkeypatch, tells: bool) -> None:
    def sysconf(name: str) -> int:
        if not tells:
            raise ValueError(name)
        return {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 3}[name]

    monkeypatch.setattr(hardware.os, "sysconf", sysconf, raising=False)
    missing = tmp_path / "none"
    assert free_memory(CPU, missing, missing, missing) == (3 * 4096 if tells else None)


def test_free_memory_of_a_gpu_counts_what_torch_keeps_unused(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 8000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 500)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 200)
    assert free_memory(torch.device("cuda"), processes=2) == 1300


@pytest.mark.parametrize(
    ("quota", "asked", "threads"),
    [
        (None, False, 8),
        (2.0, False, 2),
        (1.5, False, 1),
        (2.9, False, 2),
        (0.5, False, 1),
        (64.0, False, 8),
        (2.0, True, 8),
    ],
)
def test_no_more_threads_than_there_is_time_for(monkeypatch, quota, asked, threads) -> None:
    set_to = [8]
    monkeypatch.setattr(hardware, "core_quota", lambda: quota)
    monkeypatch.setattr(torch, "get_num_threads", lambda: set_to[-1])
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", "8")
    settle_threads()
    assert set_to[-1] == threads
    settle_threads(processes=2)
    assert set_to[-1] == (8 if asked else max(1, threads // 2))


class Mallinfo(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc 2.33 or later")
def test_freed_memory_is_kept() -> None:
    keep_freed_memory()
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype, libc.malloc.restype = Mallinfo, ctypes.c_void_p
    before = libc.mallinfo2()
    blocks = []
    while libc.mallinfo2().arena == before.arena:  # until what is free has been taken
        blocks.append(libc.malloc(ctypes.c_size_t(16 * 2**20)))
        assert libc.mallinfo2().hblks == before.hblks  # not mapped, as from 128 kB on otherwise
    held = libc.mallinfo2()
    assert held.arena > before.arena + 64 * 2**20  # more than was needed, in one go
    for block in blocks:
        libc.free(ctypes.c_void_p(block))
    assert libc.mallinfo2().arena == held.arena  # nothing is given back


def test_a_c_library_without_mallopt_is_left_alone(monkeypatch) -> None:
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda name: object())
    keep_freed_memory()
