"""The recipe of docs/evaluating.md: lm-eval on the exported folder against our own figure."""

import json
import math
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from workshop import ROOT, Outcome, Workshop, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (find_spec("lm_eval") and find_spec("transformers")), reason="lm_eval is not installed"
    ),
]
PAGE = (ROOT / "docs" / "evaluating.md").read_text(encoding="utf-8")
TEXTS = ("abc def gab cab. " * 40, "one line\n", "ab bc cd de\n\n" * 30)


def test_bits_per_byte_are_ours_but_for_the_end(
    finished: tuple[Workshop, Outcome], tmp_path: Path
) -> None:
    shop, _ = finished
    (task,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "essays.yaml").write_text(task)
    rows = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    (tmp_path / "essays.jsonl").write_text(rows)

    told = run("export", "--checkpoint", shop.root / "done", "--output", tmp_path / "exported")
    assert told.status == 0, told.err
    theirs = lm_eval(tmp_path)
    assert lm_eval(tmp_path, leave_out="add_bos_token=False,") > 1.001 * theirs  # <s> twice

    told = run(
        *("predict", "--name", "done", "--files", tmp_path / "essays.jsonl"),
        *("--data.cache_dir", tmp_path / "cache", "--trainer.default_root_dir", shop.root),
        *("--trainer.accelerator", "cpu", "--trainer.precision", "32-true"),
    )
    (line,) = (line for line in told.out.splitlines() if "tokens.jsonl: " in line)
    path = Path(line.removeprefix("written").strip().partition(": ")[0])
    nats, n_bytes = 0.0, 0
    for document in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        nats -= math.fsum(document["log_probabilities"][:-1])  # lm-eval predicts no </s>
        n_bytes += document["bytes"]
    assert theirs == pytest.approx(nats / math.log(2) / n_bytes, rel=1e-4)


def lm_eval(folder: Path, leave_out: str = "") -> float:
    """Bits per byte by the command of the page."""
    (words,) = re.findall(r"^python (-m lm_eval .*?)\n```$", PAGE, re.M | re.S)
    command = words.replace("\\\n", " ").replace(leave_out, "").split()
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "datasets")}
    done = subprocess.run(
        [sys.executable, *command, "--device", "cpu", "--output_path", str(folder / "found")],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | offline,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    newest = max((folder / "found").rglob("results*.json"), key=lambda x: x.stat().st_mtime_ns)
    found: float = json.loads(newest.read_text())["results"]["essays"]["bits_per_byte,none"]
    return found
