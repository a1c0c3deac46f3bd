"""Loss after equal real tokens: rows of like length, packed rows, and one window a row at random.

    python benchmarks/quality.py [--tokens 1000000]

Whole fits of `configs/stdlib.yaml`. The plain way has one window in each row of 256, in random
order, as many rows as hold on average the real tokens of the default's batch; each way takes the
number of steps that comes nearest to the same number of real tokens, and is evaluated over all
held-out text. `--repeats` is the number of seeds, at least 3.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from peers import HERE, ROOT, environment, parse, parser, publish, scratch
from results import Measured, Row

from lightning_embed import TextDataModule

CONFIG = "configs/stdlib.yaml"
PLAIN = "one window a row, random order"


def loss_of(
    way: dict[str, Any], steps: int, seed: int, folder: Path, options: argparse.Namespace
) -> float:
    report = folder / "report.json"
    arguments = {
        "config": CONFIG,
        "seed_everything": seed,
        "data.cache_dir": folder / "cache",
        "data.quick_eval_tokens": "null",
        "trainer.default_root_dir": folder / "runs",
        "trainer.max_steps": steps,
        "trainer.val_check_interval": steps,
        "trainer.check_val_every_n_epoch": "null",
        **{f"data.{name}": value for name, value in way.items()},
    }
    asked = {
        "form": "timed fit",
        "report": str(report),
        "began": time.time(),
        "arguments": [f"--{name}={value}" for name, value in arguments.items()],
    }
    done = subprocess.run(
        [sys.executable, str(HERE / "side_ours.py"), json.dumps(asked)],
        cwd=ROOT,
        env=environment(options.threads),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    loss: float = json.loads(report.read_text(encoding="utf-8"))["loss"]
    return loss


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--tokens", type=int, default=1_000_000, help="real targets of a run")
    options = parse(made)
    tokens = 20_000 if options.quick else options.tokens
    config = yaml.safe_load((ROOT / CONFIG).read_text(encoding="utf-8"))["data"]
    with scratch() as folder:
        cache = {"cache_dir": str(folder / "cache")}

        def a_batch(way: dict[str, Any]) -> float:
            """Real targets in the middle of an epoch's batches."""
            loader = TextDataModule(**config | way | cache).train_dataloader()
            return float(np.mean(loader.plan.targets))

        width = config["max_length"]
        windows = TextDataModule(**config | cache).train_dataloader().rows.windows
        n_rows = round(a_batch({}) / float(np.mean(windows.length)))
        ways: dict[str, dict[str, Any]] = {
            PLAIN: {"widths": [width], "tokens_per_batch": n_rows * width},
            "rows of like length (default)": {},
            "packed": {"layout": "packed"},
        }
        steps = {name: round(tokens / a_batch(way)) for name, way in ways.items()}
        losses: dict[str, list[float]] = {name: [] for name in ways}
        for seed in range(options.repeats):
            for name, way in ways.items():
                losses[name].append(loss_of(way, steps[name], seed, folder, options))
                print(f"seed {seed}, {name}: {losses[name][-1]:.4f}", flush=True)

    def measured(name: str) -> Measured:
        values: dict[str, float] = {"loss": statistics.fmean(losses[name])}
        values |= {f"with seed {seed}": loss for seed, loss in enumerate(losses[name])}
        values |= {"real targets a batch": tokens / steps[name], "steps": steps[name]}
        return Measured(name, values)

    plain = measured(PLAIN)
    rows = []
    for name in ways:
        if name != PLAIN:
            ours = measured(name)
            ratio = ours.values["loss"] / plain.values["loss"]
            rows.append(Row(name, ours, plain, ratio, at_most=1.005))
    how = (
        f"{CONFIG}, {tokens:,} real targets a run, {options.repeats} seeds; loss over all held-out"
        " text after the last step."
    )
    publish("quality", how, rows, options)


if __name__ == "__main__":
    main()
