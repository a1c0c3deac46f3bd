"""Which number format is fastest, with devices made up, and on this one."""

import os
import subprocess
import sys

import pytest
import torch

from lightning_embed import arithmetic
from lightning_embed.arithmetic import fastest_format, speed_of


def speeds(monkeypatch: pytest.MonkeyPatch, **found: float) -> list[torch.dtype]:
    """Pretend that products in these formats have these speeds; returns those asked about."""
    asked = []

    def speed(dtype: torch.dtype, device: str) -> float:
        asked.append(dtype)
        return found[str(dtype).removeprefix("torch.")]

    monkeypatch.setattr(arithmetic, "speed_of", speed)
    return asked


@pytest.mark.parametrize(
    ("native", "float16", "precision"),
    [(True, 2.0, "bf16-mixed"), (False, 2.0, "16-mixed"), (False, 0.02, "32-true")],
)
def test_on_a_gpu(monkeypatch, native, float16, precision) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return native or including_emulation  # emulated everywhere, and slow

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    speeds(monkeypatch, float16=float16)
    assert fastest_format("cuda").precision == precision


@pytest.mark.parametrize(
    ("amx", "avx512", "machine", "speed", "precision", "reason"),
    [
        (True, True, "x86_64", 4.4, "bf16-mixed", "AMX"),
        (False, True, "x86_64", 2.2, "bf16-mixed", "AVX512-BF16"),
        (False, True, "x86_64", 0.02, "32-true", "slower than float32"),  # a flag that lies
        (False, False, "aarch64", 3.0, "bf16-mixed", "bfloat16"),
        (False, False, "aarch64", 0.4, "32-true", "slower than float32"),
        (False, False, "x86_64", None, "32-true", "no fast bfloat16"),  # and nothing is timed
    ],
)
def test_on_a_processor(monkeypatch, amx, avx512, machine, speed, precision, reason) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    monkeypatch.setattr(arithmetic.platform, "machine", lambda: machine)
    asked = speeds(monkeypatch, **({} if speed is None else {"bfloat16": speed}))
    found = fastest_format("cpu")
    assert found.precision == precision and reason in found.reason
    assert bool(asked) == (speed is not None)


def test_where_torch_cannot_tell(monkeypatch) -> None:
    """These names are private: a torch without them must not stop the run."""
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    monkeypatch.setattr(arithmetic.platform, "machine", lambda: "x86_64")
    assert fastest_format("cpu").precision == "32-true"
    assert fastest_format("mps").precision == "32-true"


def test_a_format_has_the_name_that_torch_and_the_settings_give_it() -> None:
    found = fastest_format("cpu")
    assert getattr(torch, found.name) is found.dtype


def test_timing_a_product_leaves_threads_and_random_numbers_alone() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    assert speed_of(torch.bfloat16, "cpu") > 0
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)


def test_kernels_without_bfloat16_units_are_found_out() -> None:
    """oneDNN told to use AVX2 alone emulates bfloat16 whatever the processor's flags say; a factor
    of thirty or more, so that no load on the machine turns it round."""
    code = (
        "from lightning_embed.arithmetic import fastest_format; print(fastest_format('cpu').name)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == "float32"
