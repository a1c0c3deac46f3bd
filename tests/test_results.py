"""RESULTS.md and the README's figures are what `benchmarks/results.py` makes of results.jsonl."""

import ast
import json
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from workshop import ROOT

MADE_OF = ("results.py", "tables.py", "results.jsonl", "RESULTS.md")
ANOTHER = {"format": "avx2", "vector_bits": 256, "threads": 2, "name": "another"}
HEAD = "AVX2, 256 bits, 2 threads"
FLOAT32 = ANOTHER | {"numbers": "float32"}


class Copy:
    """The records and all that is made of them, in a folder of its own."""

    def __init__(self, root: Path) -> None:
        self.folder, self.readme = root / "benchmarks", root / "README.md"
        self.folder.mkdir()
        for name in MADE_OF:
            shutil.copy(ROOT / "benchmarks" / name, self.folder)
        shutil.copy(ROOT / "README.md", self.readme)
        lines = (self.folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
        self.records: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def make(self, *options: str) -> subprocess.CompletedProcess[str]:
        lines = (json.dumps(record) + "\n" for record in self.records)
        (self.folder / "results.jsonl").write_text("".join(lines), encoding="utf-8")
        command = [sys.executable, str(self.folder / "results.py"), *options]
        return subprocess.run(command, capture_output=True, text=True)

    def results(self) -> str:
        return (self.folder / "RESULTS.md").read_text(encoding="utf-8")

    def a_step(self) -> dict[str, Any]:
        """The newest record of a row that the README shows too."""
        what = "a step, AdamW, to nanoGPT compiled"
        return next(record for record in reversed(self.records) if record["what"] == what)


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def test_what_people_read_is_what_was_measured(copy: Copy) -> None:
    found = copy.make("--check")
    assert found.returncode == 0, found.stderr


def test_a_figure_that_differs_is_found(copy: Copy) -> None:
    copy.a_step()["ratio"] = 7.77
    found = copy.make("--check")
    assert found.returncode == 1 and "RESULTS.md and README.md" in found.stderr
    assert copy.make().returncode == 0 and copy.make("--check").returncode == 0
    assert "7.77 (" in copy.results() and "| 7.77 |" in copy.readme.read_text(encoding="utf-8")


@pytest.mark.parametrize(("date", "shown"), [("2000-01-01", False), ("2999-01-01", True)])
def test_of_a_row_the_newest_is_shown(copy: Copy, date: str, shown: bool) -> None:
    copy.records.append(copy.a_step() | {"ratio": 7.77, "date": date})
    assert copy.make().returncode == 0
    assert ("7.77 (" in copy.results()) == shown


def test_another_class_of_machine_stands_beside(copy: Copy) -> None:
    step = copy.a_step()
    copy.records.append(step | {"ratio": 0.777, "machine": ANOTHER, "date": "2000-01-01"})
    assert copy.make().returncode == 0
    row = next(line for line in copy.results().splitlines() if step["what"] in line)
    assert f" {step['ratio']:.2f}" in row and "0.777, missed (" in row
    assert HEAD in copy.results() and HEAD in copy.readme.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("machine", "head"),
    [
        (FLOAT32, f"float32, {HEAD}"),
        (FLOAT32 | {"emulated": True}, f"float32, {HEAD}, emulated"),
        (
            FLOAT32 | {"format": "avx512", "vector_bits": 512},
            "float32, AVX512, 512 bits, 2 threads",
        ),
    ],
)
def test_float32_is_a_class_of_its_own(copy: Copy, machine: dict[str, Any], head: str) -> None:
    """Also on the machine whose bfloat16 stands beside it, and where each lacks the other's row."""
    copy.records = [r for r in copy.records if "numbers" not in r["machine"]]
    step = copy.a_step()
    bfloat16 = "AVX512-BF16, 512 bits, 2 threads"
    copy.records += [
        step | {"ratio": 1.23, "machine": machine},
        step | {"ratio": 1.45, "machine": machine, "what": "a step, eager"},
    ]
    assert copy.make().returncode == 0
    table = copy.results().split("## Time to nanoGPT's loss")[0].splitlines()
    assert f"| row | bar | {bfloat16} | {head} |" in table
    assert next(x for x in table if "a step, eager" in x).split(" | ")[2] == ""
    assert next(x for x in table if "a step, Muon, to nanoGPT eager" in x).endswith(" |  |")
    readme = copy.readme.read_text(encoding="utf-8")
    assert f"| ratio | script | {bfloat16} | {head} |" in readme
    assert f"| {step['ratio']:.2f} | 1.23 |" in readme


def test_the_readme_shows_a_row_that_one_class_alone_has(copy: Copy) -> None:
    shown = copy.a_step()
    copy.records = [
        record | {"machine": FLOAT32} if record["what"] == shown["what"] else record
        for record in copy.records
    ]
    assert copy.make().returncode == 0
    lines = copy.readme.read_text(encoding="utf-8").splitlines()
    head = next(line for line in lines if line.startswith("| ratio | script"))
    row = next(line for line in lines if "speed of a step with AdamW" in line)
    cells = dict(
        zip(
            head.removesuffix(" |").split(" | ")[2:],
            row.removesuffix(" |").split(" | ")[2:],
            strict=True,
        )
    )
    assert set(cells.values()) == {f"{shown['ratio']:.2f}", ""}
    assert cells[f"float32, {HEAD}"]


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return import_module("results")


@pytest.mark.parametrize(
    ("capability", "has_avx512", "onednn", "found"),
    [
        ("AVX512", True, "", False),
        ("AVX2", False, "", False),
        ("AVX2", True, "avx2", True),
        ("DEFAULT", True, "AVX2", True),
    ],
)
def test_a_machine_that_stands_in_for_a_lesser_one_is_known(
    results: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capability: str,
    has_avx512: bool,
    onednn: str,
    found: bool,
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", onednn)
    assert results.emulated(capability, has_avx512) == found


def test_half_an_emulation_is_refused(results: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    with pytest.raises(SystemExit, match="ONEDNN_MAX_CPU_ISA=AVX2"):
        results.emulated("AVX2", has_avx512=True)


def test_a_float32_run_is_recorded_as_one_on_any_machine(results: ModuleType) -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU is one class")
    found = results.machine("float32")
    assert found["numbers"] == "float32" and "bf16" not in found["format"]
    assert "amx" not in found["format"]
    assert results.machine("bfloat16").keys() & {"numbers"} == set()


def test_two_classes_of_machine_fit_in_220_lines(copy: Copy) -> None:
    copy.records += [record | {"machine": ANOTHER} for record in copy.records]
    found = copy.make()
    assert found.returncode == 0, found.stderr
    assert len(copy.results().splitlines()) <= 220


def test_each_script_records_into_a_table_that_is_known() -> None:
    """Else it would fail after what may be an hour."""
    known: set[str] = set()
    asked: dict[str, str] = {}
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TABLES":
                known |= set(ast.literal_eval(node.value))
            elif (
                isinstance(node, ast.Call)
                and ast.unparse(node.func) in ("record", "publish")
                and isinstance(node.args[0], ast.Constant)
            ):
                asked[path.name] = node.args[0].value
    assert len(asked) > 10 and set(asked.values()) <= known
