"""The ladder of runs that the rule of `fit --minutes` is fitted on, and the fit.

    python benchmarks/ladder.py run --text NAME [--files FILE ...] --width 128 --tokens 500000
    python benchmarks/ladder.py fit

`run` trains one size on one text for so many tokens, with batch and learning rates of the rule, and
appends a line to `ladder.jsonl`: settings, vocabulary, unique and processed tokens, loss and bits
per byte over all held-out text after the last step. `fit` prints the constants of
`lightning_embed/training/sizing.py`.

The texts of the ladder that is there: `stdlib`, the default corpus; `torch`, 3 MB of the Python
files of the torch package, those whose paths' md5 is lowest; `shake`, the first 100,000 bytes of
Tiny Shakespeare.

Lines 11 to 14 are not made by `run`: the default run, mean of seeds 42 to 44; `fit --minutes 2` on
`stdlib` and on `shake`; `--config configs/stdlib.yaml --minutes 2.05`. The ladder is short, so that
the exponents are not fitted; wider networks than 256 and longer runs are extrapolated. One run for
each line, and two seeds differ by up to 5 %. What the law misses: on 40,000 tokens width 256 is
worse than it says.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from lightning_embed import TextDataModule
from lightning_embed.training.sizing import (
    USEFUL_PASSES,
    Kept,
    Law,
    Shape,
    batch_size,
    learning_rates,
    shapes,
    work,
)

HERE = Path(__file__).resolve().parent
ROOT, LADDER = HERE.parent, HERE / "ladder.jsonl"
MAX_LENGTH = 256

# Of Hoffmann et al. (arXiv:2203.15556): a ladder as short as this one would take any exponents.
ALPHA, BETA = 0.34, 0.28

# What the fit chooses among; the other constants follow.
HALF_LIVES = (2.0, 4.0, 8.0, 16.0, 32.0)
TEACHES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


def shape_of(width: int) -> Shape:
    return next(shape for shape in shapes(Kept()) if shape.d_model == width)


def run(
    text: str,
    files: list[str],
    width: int,
    tokens: float,
    dropout: float,
    batch: int | None = None,
) -> dict[str, Any]:
    """One run over `tokens` tokens; returns its record."""
    batch = batch or batch_size(tokens, MAX_LENGTH)
    lr, muon_lr = learning_rates(batch, width)
    named: dict[str, Any] = {"files": files} if files else {}
    data = TextDataModule(**named, max_length=MAX_LENGTH, tokens_per_batch=batch)
    steps = max(10, round(tokens / data.targets_per_step))
    made = {
        **{f"model.{name}": value for name, value in shape_of(width)._asdict().items()},
        "model.lr": lr,
        "model.muon_lr": muon_lr,
        "model.dropout": dropout,
        "model.decay_fraction": 1.0,
        "data.tokens_per_batch": batch,
    }
    began = time.time()
    with tempfile.TemporaryDirectory() as folder:
        arguments = made | {
            "data.max_length": MAX_LENGTH,
            "data.eval_overlap": MAX_LENGTH // 2,
            "data.quick_eval_tokens": 16_384,
            "trainer.max_steps": steps,
            "trainer.val_check_interval": steps,  # so that the last weights are evaluated
            "trainer.check_val_every_n_epoch": "null",
            "trainer.default_root_dir": folder,
            "samples.max_new_tokens": 0,
            **({"data.files": json.dumps(files)} if files else {}),
        }
        done = subprocess.run(
            [sys.executable, "train.py", "fit", *(f"--{k}={v}" for k, v in arguments.items())],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    loss = re.search(r"validation loss ([\d.]+)", done.stdout)
    bits = re.search(r"bits per byte ([\d.]+)", done.stdout)
    assert loss and bits, done.stdout
    train, report = data.prepared.train, data.prepared.report
    return {
        "text": text,
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


def records() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LADDER.read_text(encoding="utf-8").splitlines()]


def usable(found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Runs that the law is about: of each text, size and length the best dropout, and no more
    passes than help."""
    best: dict[tuple[str, int, int], dict[str, Any]] = {}
    for record in found:
        key = record["text"], record["model.d_model"], record["tokens"]
        if key not in best or record["bits_per_byte"] < best[key]["bits_per_byte"]:
            best[key] = record
    yield from (r for r in best.values() if r["tokens"] <= 1.1 * USEFUL_PASSES * r["unique"])


def fit(found: list[dict[str, Any]]) -> tuple[Law, float]:
    """The law with least squared errors of bits per byte, and the root of their mean.

    Every text has an E of its own. For each half-life and `teaches` the rest is linear.
    """
    used = list(usable(found))
    texts = sorted({record["text"] for record in used})
    bits = np.array([record["bits_per_byte"] for record in used])
    own = np.array([[record["text"] == text for text in texts] for record in used], float)
    sizes = [work(shape_of(r["model.d_model"]), r["vocabulary"]) for r in used]
    best, least = None, np.inf
    for half_life, teaches in product(HALF_LIVES, TEACHES):
        law = Law(1.0, ALPHA, 1.0, BETA, half_life, teaches)
        effective = np.array([law.effective(r["tokens"], r["unique"]) for r in used])
        useful = np.array([law.useful(n, r["unique"]) for n, r in zip(sizes, used, strict=True)])
        columns = np.column_stack([own, useful**-ALPHA, effective**-BETA])
        solved = np.linalg.lstsq(columns, bits, rcond=None)[0]
        error = float(np.sum((columns @ solved - bits) ** 2))
        if error < least and solved.min() >= 0:
            a, b = (float(f"{x:.4g}") for x in solved[-2:])
            best = law._replace(a=a, b=b)
            least = error
    assert best is not None, "no constants fit"
    return best, float(np.sqrt(least / len(used)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fit")
    one = commands.add_parser("run")
    one.add_argument("--text", required=True)
    one.add_argument("--files", nargs="*", default=[])
    one.add_argument("--width", type=int, required=True)
    one.add_argument("--tokens", type=float, required=True)
    one.add_argument("--dropout", type=float, default=0.0)
    one.add_argument("--batch", type=int, help="positions; by default the rule's")
    given = parser.parse_args()
    if given.command == "fit":
        law, error = fit(records())
        print(f"LAW = {law}   # off by {error:.3f} bits per byte")
        return
    found = run(given.text, given.files, given.width, given.tokens, given.dropout, given.batch)
    with open(LADDER, "a", encoding="utf-8") as file:
        file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
