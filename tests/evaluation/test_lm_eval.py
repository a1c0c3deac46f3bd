"""The recipe of docs/evaluating.md: lm-eval on the exported folder against our own figure."""

import json
import math
import os
import random
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from workshop import ROOT, Outcome, Workshop, run

from lightning_embed.pretrained.checkpoint import read_trained
from lightning_embed.pretrained.weights import Pretrained

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (find_spec("lm_eval") and find_spec("transformers")), reason="lm_eval is not installed"
    ),
]
PAGE = (ROOT / "docs" / "evaluating.md").read_text(encoding="utf-8")
DRAW = random.Random(0)  # lm-eval takes windows that repeat themselves for one another
TEXTS = [" ".join(DRAW.choices(("abc", "def gab", "cab.\n", "fade"), k=k)) for k in (200, 2, 90)]


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
    documents = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    # lm-eval predicts no </s>
    ours = -math.fsum(x for document in documents for x in document["log_probs"][:-1])
    pretrained = read_trained(str(shop.root / "done"))
    assert nats(pretrained, exported=False) == pytest.approx(ours, rel=1e-5)
    n_bytes = sum(len(text.encode()) for text in TEXTS)
    as_exported = nats(pretrained, exported=True) / math.log(2) / n_bytes
    assert theirs == pytest.approx(as_exported, rel=1e-5)


@torch.no_grad()
def nats(pretrained: Pretrained, exported: bool) -> float:
    """Of all texts but their ends, in windows as `test` cuts them; or as lm-eval finds them: with a
    logit of 0 at padding, and a document's last window filled up with the text before it."""
    total, length = 0.0, pretrained.max_length
    for text in TEXTS:
        ids = torch.tensor([0, *pretrained.tokenizer.encode(text)])
        for start in range(0, len(ids) - 1, length):
            end = min(start + length, len(ids) - 1)
            begin = max(0, end - length) if exported else start
            logits = pretrained.network(ids[None, begin:end])[0].double()
            logits[:, 1] = 0.0 if exported else -math.inf
            targets = ids[start + 1 : end + 1]
            total += float(F.cross_entropy(logits[start - begin :], targets, reduction="sum"))
    return total


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
