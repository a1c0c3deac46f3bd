"""Figures as data: scripts append records here, and what people read is made from them.

    python benchmarks/results.py            write RESULTS.md and the README's figures
    python benchmarks/results.py --check    only say whether they are what results.jsonl gives

Each line of `results.jsonl` is one record, a comparison or a measurement:

- `table`, `script`, `what`: where it belongs; `what` names the row and stays the same
- `ours`, `beside`: the settings of each side in words, and its measured values, named by their unit
- `ratio` of the two, and the bar it is held to (`at_least` or `at_most`)
- `how`: what both sides had in common, and how often it was repeated
- `machine`: its class, which is number format, width of its vectors in bits and threads (of a GPU,
  its name), and its name; records of one class replace each other, classes stand side by side.
  Float32 is a class of its own, also on a machine that has bfloat16, and says so; so is a machine
  that stands in for a lesser one: with `ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2
  MKL_ENABLE_INSTRUCTIONS=AVX2` torch's kernels, its libraries' and inductor's are those for AVX2
- `versions`, `python`, `date`

Shown is the newest record of each table, row and class. To take a row back, delete its lines.
"""

import argparse
import datetime
import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from tables import Record, readme_text, results_text, section

HERE = Path(__file__).resolve().parent
RECORDS, RESULTS, README = HERE / "results.jsonl", HERE / "RESULTS.md", HERE.parent / "README.md"
PACKAGES = ("torch", "lightning", "torchmetrics", "tokenizers", "datasets")


class Measured(NamedTuple):
    """A side: its settings in words, and values by unit, such as `{"ms a step": 149.8}`. The first
    value is the one that tables show."""

    settings: str
    values: dict[str, float]


class Row(NamedTuple):
    """A comparison, or a measurement with nothing beside it."""

    what: str
    ours: Measured
    beside: Measured | None = None
    ratio: float | None = None
    at_least: float | None = None
    at_most: float | None = None


def machine(numbers: str | None = None) -> dict[str, Any]:
    """The class and the name of what this process computes on.

    Args:
        numbers: "float32" or "bfloat16", in which our side multiplies; unset, the faster here.
    """
    import torch

    from lightning_embed.arithmetic import fastest_format

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        return {"format": name, "name": name}
    capability = torch.backends.cpu.get_cpu_capability()
    low = [
        name
        for name, test in (
            ("amx", "_is_amx_tile_supported"),
            ("avx512-bf16", "_is_avx512_bf16_supported"),
        )
        if getattr(torch.cpu, test, lambda: False)()
    ]
    exact = (numbers or fastest_format("cpu").name) == "float32"
    about = {
        "format": capability.lower() if exact or not low else low[0],
        "vector_bits": {"AVX512": 512, "AVX2": 256}.get(capability, 128),
        "threads": torch.get_num_threads(),
        "name": processor_name(),
    }
    if exact:
        about["numbers"] = "float32"
    if emulated(capability, torch.cpu._is_avx512_supported()):
        about["emulated"] = True
    return about


def emulated(capability: str, has_avx512: bool) -> bool:
    """Whether torch was told to use less than the processor has; libraries must be told too."""
    if capability == "AVX512" or not has_avx512:
        return False
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() != "AVX2":
        raise SystemExit("ATEN_CPU_CAPABILITY alone is half an emulation: ONEDNN_MAX_CPU_ISA=AVX2")
    return True


def processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def record(
    table: str, how: str, rows: Sequence[Row], *, keep: bool = True, numbers: str | None = None
) -> None:
    """Show a table, and append its rows to results.jsonl.

    Args:
        table: a key of `tables.TABLES`.
        how: what both sides had in common, and how often it was repeated.
        rows: of the table.
        keep: False only shows them, for a quick try.
        numbers: see `machine`.
    """
    about = {
        "machine": machine(numbers),
        "versions": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "date": str(datetime.date.today()),
    }
    script = f"benchmarks/{Path(sys.argv[0]).name}"
    found = []
    for row in rows:
        line: Record = {"table": table, "script": script, "what": row.what}
        line["ours"] = side(row.ours)
        if row.beside is not None:
            line["beside"] = side(row.beside)
        for name in ("ratio", "at_least", "at_most"):
            if (value := getattr(row, name)) is not None:
                line[name] = rounded(value)
        found.append(line | {"how": how} | about)
    print("", *section(table, found), "" if keep else "(a quick try, not recorded)", sep="\n")
    if keep:
        with open(RECORDS, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in found)
        write()


def side(measured: Measured) -> Record:
    values = {name: rounded(value) for name, value in measured.values.items()}
    return {"settings": measured.settings, "values": values}


def rounded(value: float) -> float:
    """Five digits: what is measured has no more."""
    return value if isinstance(value, int) else float(f"{value:.5g}")


def read() -> list[Record]:
    return [json.loads(line) for line in RECORDS.read_text(encoding="utf-8").splitlines()]


def made() -> dict[Path, str]:
    """Each file that is made, and what it should hold."""
    records = read()
    return {
        RESULTS: results_text(records),
        README: readme_text(records, README.read_text(encoding="utf-8")),
    }


def write() -> None:
    for path, text in made().items():
        path.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, leave with 1 if stale")
    if not parser.parse_args().check:
        return write()
    stale = [path.name for path, text in made().items() if path.read_text("utf-8") != text]
    if stale:
        raise SystemExit(f"{' and '.join(stale)}: not what results.jsonl gives; run me")


if __name__ == "__main__":
    main()
