"""The ladder of runs that `training/sizing.py` is fitted on, and the fit.

python benchmarks/ladder.py run --text stdlib --width 128 --tokens 1500000
python benchmarks/ladder.py fit
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lightning_embed import TextDataModule
from lightning_embed.training.sizing import batch_size, learning_rates, shape

HERE = Path(__file__).resolve().parent
ROOT, LADDER = HERE.parent, HERE / "ladder.jsonl"
MAX_LENGTH = 256


def run(
    name: str, files: list[str], width: int, tokens: float, dropout: float, folder: str
) -> dict[str, Any]:
    """One run over `tokens` tokens; returns its record."""
    batch = batch_size(tokens, MAX_LENGTH)
    lr, muon_lr = learning_rates(batch, width)
    text: dict[str, Any] = {"files": files} if files else {}
    data = TextDataModule(**text, max_length=MAX_LENGTH, tokens_per_batch=batch)
    steps = max(10, round(tokens / data.targets_per_step))
    made = {
        "model.lr": lr,
        "model.muon_lr": muon_lr,
        "model.dropout": dropout,
        "model.decay_fraction": 1.0,
        "data.tokens_per_batch": batch,
        **{f"model.{k}": v for k, v in shape(width)._asdict().items()},
    }
    arguments = {
        **made,
        "data.max_length": MAX_LENGTH,
        "data.eval_overlap": 128,
        "data.quick_eval_tokens": 16384,
        "trainer.max_steps": steps,
        "trainer.val_check_interval": steps,
        "trainer.check_val_every_n_epoch": "null",
        "trainer.default_root_dir": folder,
        "samples.max_new_tokens": 0,
        "checkpoints.every_n_steps": 10**6,
    }
    if files:
        arguments["data.files"] = json.dumps(files)
    began = time.time()
    done = subprocess.run(
        [sys.executable, "train.py", "fit", *(f"--{k}={v}" for k, v in arguments.items())],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    train, report = data.prepared.train, data.prepared.report
    loss = re.search(r"validation loss ([\d.]+)", done.stdout)
    bits = re.search(r"bits per byte ([\d.]+)", done.stdout)
    assert loss and bits, done.stdout
    return {
        "text": name,
        **made,
        "steps": steps,
        "vocabulary": report.vocabulary,
        "train_bytes": report.splits["train"].bytes,
        "unique": train.n_targets,
        "tokens": round(steps * data.targets_per_step),
        "loss": float(loss[1]),
        "bits_per_byte": float(bits[1]),
        "seconds": round(time.time() - began),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--text", required=True)
    parser.add_argument("--files", nargs="*", default=[])
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--tokens", type=float, required=True)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--runs", required=True)
    given = parser.parse_args()
    found = run(given.text, given.files, given.width, given.tokens, given.dropout, given.runs)
    with open(LADDER, "a", encoding="utf-8") as file:
        file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
