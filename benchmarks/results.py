"""Appending a measured table to RESULTS.md, with when, on what and with which versions."""

import datetime
import platform
from importlib.metadata import version
from pathlib import Path

import torch

RESULTS = Path(__file__).with_name("RESULTS.md")
PACKAGES = ("torch", "lightning", "torchmetrics", "tokenizers", "datasets")


def machine() -> str:
    """The processor or GPU, cores and threads."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    features = [
        label
        for label, test in (
            ("AMX", "_is_amx_tile_supported"),
            ("AVX512-BF16", "_is_avx512_bf16_supported"),
        )
        if getattr(torch.cpu, test, lambda: False)()
    ]
    return f"{name}, {torch.get_num_threads()} threads, {' '.join(features) or 'no bfloat16'}"


def record(title: str, text: str) -> None:
    """Print a section and append it to RESULTS.md."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    head = f"{datetime.date.today()}, {machine()}, Python {platform.python_version()}, {versions}"
    section = f"\n## {title}\n\n{head}\n\n{text.rstrip()}\n"
    print(section)
    with open(RESULTS, "a", encoding="utf-8") as file:
        file.write(section)
