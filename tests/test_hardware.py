"""What the machine can do, with machines made up."""

import ctypes

import pytest
import torch

from lightning_embed import hardware
from lightning_embed.hardware import (
    core_quota,
    keep_freed_memory,
    require_memory,
    settle_threads,
    suggested_precision,
)


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16-mixed"), (False, "16-mixed")])
def test_precision_on_a_gpu(monkeypatch, native, precision) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return native or including_emulation  # emulated everywhere, and slow

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert suggested_precision("cuda").precision == precision


@pytest.mark.parametrize(
    ("amx", "avx512", "precision", "reason"),
    [
        (True, True, "bf16-mixed", "AMX"),
        (False, True, "bf16-mixed", "AVX512-BF16"),
        (False, False, "32-true", "no fast bfloat16"),
    ],
)
def test_precision_on_a_processor(monkeypatch, amx, avx512, precision, reason) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    found = suggested_precision("cpu")
    assert found.precision == precision and reason in found.reason


def test_precision_where_torch_cannot_tell(monkeypatch) -> None:
    """These names are private: a torch without them must not stop the run."""
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert suggested_precision("cpu").precision == "32-true"
    assert suggested_precision("mps").precision == "32-true"


def test_a_model_larger_than_memory_is_refused(monkeypatch) -> None:
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**18}  # 1 GiB
    monkeypatch.setattr(hardware.os, "sysconf", sizes.__getitem__, raising=False)
    require_memory(2**30 // 16)
    with pytest.raises(ValueError, match=r"need 2 GiB .*has\s1 GiB.*--model.n_layers"):
        require_memory(2**31 // 16)


@pytest.mark.parametrize("error", [AttributeError, ValueError, OSError])
def test_a_platform_that_does_not_tell_is_trusted(monkeypatch, error) -> None:
    def unknown(name: str) -> int:
        raise error(name)

    monkeypatch.setattr(hardware.os, "sysconf", unknown, raising=False)
    require_memory(10**15)


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000", None), ("150000 100000", 1.5), ("nonsense", None)]
)
def test_a_containers_quota(monkeypatch, text, cores) -> None:
    monkeypatch.setattr(hardware.Path, "read_text", lambda path, **_: text)
    assert core_quota() == cores


@pytest.mark.parametrize(
    ("quota", "asked", "threads"),
    [(None, False, 8), (2.0, False, 2), (0.5, False, 1), (64.0, False, 8), (2.0, True, 8)],
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
