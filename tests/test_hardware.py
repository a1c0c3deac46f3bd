"""What the machine can do, with machines made up."""

import platform
import subprocess
import sys

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


@pytest.mark.skipif("glibc" not in "".join(platform.libc_ver()), reason="glibc only")
def test_freed_memory_costs_no_faults() -> None:
    def faults(before: str) -> int:
        program = (
            "import resource, torch\n"
            "from lightning_embed.hardware import keep_freed_memory\n"
            f"{before}\n"
            "begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
            "for _ in range(10): [torch.ones(2**20) for _ in range(16)]\n"  # 16,384 pages
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begin)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    # measured: 21,503 to 24,575 and 33,807 to 50,161, as the C library happens to lay them out
    assert faults("keep_freed_memory()") < 29_000 < faults("")


def test_a_c_library_without_mallopt_is_left_alone(monkeypatch) -> None:
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda name: object())
    keep_freed_memory()
