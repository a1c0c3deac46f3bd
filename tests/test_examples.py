"""The files of docs/examples/: each runs to its end, and the page lists it."""

import re
import runpy
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from workshop import ROOT

from lightning_embed import DecoderLM

FOLDER = ROOT / "docs" / "examples"
ONNX = FOLDER / "onnx_file.py"
ALONE = sorted(path for path in FOLDER.glob("*.py") if path != ONNX)

with_onnx = pytest.mark.skipif(
    find_spec("onnxscript") is None or find_spec("onnxruntime") is None,
    reason="needs the extra onnx",
)


def start(path: Path, *arguments: str) -> None:
    """As `python docs/examples/FILE`, in this process."""
    sys.argv = [str(path), *arguments]
    runpy.run_path(str(path), run_name="__main__")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)


@pytest.mark.parametrize("path", ALONE, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore")  # Lightning's advice on so small a training
def test_it_runs(path: Path) -> None:
    start(path)


def test_the_page_lists_each() -> None:
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[(.+?)\]\(examples/\1\) \|", page, re.M)
    assert sorted(listed) == sorted(path.name for path in FOLDER.iterdir() if path.is_file())


@pytest.mark.slow
@with_onnx
@pytest.mark.filterwarnings("ignore")
def test_the_onnx_example_runs(tmp_path: Path) -> None:
    start(ONNX, str(tmp_path / "model.onnx"))
    assert (tmp_path / "model.onnx").stat().st_size > 100_000


@pytest.mark.slow
@with_onnx
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"scale_embedding": True},
        {"tied": False},
        {"scale_embedding": True, "tied": False, "rope_theta": 500.0},
        {"n_heads": 4, "n_kv_heads": 2},
        {"qk_norm": False},
    ],
    ids=lambda settings: "-".join(settings) or "default",
)
def test_onnx_logits_are_the_networks(
    tiny_lm: Callable[..., DecoderLM], tmp_path: Path, settings: dict[str, Any]
) -> None:
    network = tiny_lm(torch.float32, **settings)
    example = runpy.run_path(str(ONNX))
    path = tmp_path / "model.onnx"
    example["write_onnx"](network, path)
    for rows, length in ((1, 1), (3, 40)):
        ids = torch.randint(0, 23, (rows, length))
        assert example["largest_difference"](network, path, ids) < 2e-5
