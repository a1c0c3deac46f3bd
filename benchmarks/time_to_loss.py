"""Time to nanoGPT's final loss on Tiny Shakespeare characters, beside nanoGPT itself.

    python benchmarks/time_to_loss.py --text input.txt --nanogpt DIR

nanoGPT's own `train.py` runs its README's CPU example (4 layers, 4 heads, width 128, context 64,
12 rows, 2,000 steps, float32, eager, dropout 0) in a copy of its folder; its loss is then taken
from its last checkpoint, over the whole validation part in windows of 64 that do not overlap. Ours
trains `configs/shakespeare_fast.yaml`, at most 0.81 M parameters, its few steps planned beforehand,
each round with another seed, and is evaluated over the same part in the same windows at its end.
Told are

- seconds in optimizer steps: nanoGPT's own `iter` lines without the two in which it evaluates; ours
  from step to step, all of them, but those in which something is compiled as a median step each;
- seconds from command to loss: imports, tokenising, compilation if any and evaluation, first with
  empty caches, then again with what the first run left. nanoGPT's is to the end of its `train.py`,
  with `prepare.py` and without the evaluation of the whole part.

By default so short a run is not compiled; `--compile` asks for it.

The text is not part of this project (char-rnn's `input.txt`, 1,115,394 characters); how to get
nanoGPT: see `peers.py`. nanoGPT takes minutes a round: `--nanogpt-repeats` can be fewer.
"""

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from peers import HERE, ROOT, environment, parse, parser, publish, scratch
from results import Measured, Row

PUBLISHED = 1.886  # nanoGPT's, over the whole validation part
MOST_PARAMETERS = 810_000
CONFIG = "configs/shakespeare_fast.yaml"
SETTING = (  # nanoGPT's README, CPU; the number of steps is added
    "--device=cpu",
    "--compile=False",
    "--eval_iters=20",
    "--log_interval=1",
    "--block_size=64",
    "--batch_size=12",
    "--n_layer=4",
    "--n_head=4",
    "--n_embd=128",
    "--lr_decay_iters=2000",
    "--dropout=0.0",
)


class Run(NamedTuple):
    loss: float
    in_steps: float  # seconds
    steps: int
    whole: float  # seconds from command to loss
    parameters: int
    compiled: bool


def run_nanogpt(source: Path, text: Path, folder: Path, options: argparse.Namespace) -> Run:
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns(".git", "*.bin"))
    data = folder / "data" / "shakespeare_char"
    shutil.copy(text, data / "input.txt")
    (data / "requests.py").touch()  # its downloader, not needed where the text is at hand
    steps = 60 if options.quick else 2000
    setting = [*SETTING, f"--max_iters={steps}", f"--eval_interval={steps}"]
    began = time.perf_counter()
    subprocess.run([sys.executable, "prepare.py"], cwd=data, check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, "train.py", "config/train_shakespeare_char.py", *setting],
        cwd=folder,
        env=environment(options.threads),
        check=True,
        capture_output=True,
        text=True,
    )
    whole = time.perf_counter() - began
    lines = re.findall(r"^iter (\d+): loss .*, time ([\d.]+)ms", done.stdout, re.MULTILINE)
    taken = [float(ms) / 1000 for number, ms in lines if int(number) % steps]
    evaluated = subprocess.run(
        [sys.executable, str(HERE / "side_nanogpt.py"), json.dumps({"evaluate": str(folder)})],
        env=environment(options.threads),
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(evaluated.stdout.splitlines()[-1])
    mean = statistics.fmean(taken)
    return Run(found["loss"], mean * steps, steps, whole, found["parameters"], compiled=False)


def run_ours(text: Path, folder: Path, caches: Path, seed: int, options: argparse.Namespace) -> Run:
    folder.mkdir()
    caches.mkdir(exist_ok=True)
    steps = options.planned or (8 if options.quick else None)
    asked = {
        "form": "timed fit",
        "report": str(folder / "report.json"),
        "began": time.time(),
        "arguments": [
            f"--config={CONFIG}",
            f"--seed_everything={seed}",
            f"--data.files={text}",
            f"--data.cache_dir={folder / 'cache'}",
            f"--trainer.default_root_dir={folder / 'runs'}",
            *(
                [f"--trainer.max_steps={steps}", f"--trainer.val_check_interval={steps}"]
                * bool(steps)
            ),
            *["--model.compile=true"] * options.compile,
        ],
    }
    done = subprocess.run(
        [sys.executable, str(HERE / "side_ours.py"), json.dumps(asked)],
        cwd=ROOT,
        env=environment(
            options.threads, TMPDIR=str(caches), TORCHINDUCTOR_CACHE_DIR=str(caches / "compiled")
        ),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    found = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    seconds = found["seconds"]
    in_steps = sum(seconds)
    if found["compiled"]:  # in the second step
        in_steps += statistics.median(seconds) - seconds[1]
    return Run(
        found["loss"],
        in_steps,
        len(seconds),
        found["whole"],
        found["parameters"],
        bool(found["compiled"]),
    )


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--nanogpt", required=True, type=Path, help="folder with nanoGPT's train.py")
    made.add_argument("--text", required=True, type=Path, help="Tiny Shakespeare's input.txt")
    made.add_argument("--nanogpt-repeats", type=int, help="rounds in which it runs; unset, all")
    made.add_argument("--planned", type=int, help="steps of ours; unset, the configuration's")
    made.add_argument("--compile", action="store_true", help="compile ours")
    options = parse(made)
    text = options.text.resolve()
    theirs, cold, warm = list[Run](), list[Run](), list[Run]()
    wanted = options.repeats if options.nanogpt_repeats is None else options.nanogpt_repeats
    with scratch() as folder:
        for number in range(options.repeats):
            if number < wanted:
                theirs.append(
                    run_nanogpt(options.nanogpt, text, folder / f"nanogpt-{number}", options)
                )
                print("nanoGPT", theirs[-1], flush=True)
            caches = folder / f"caches-{number}"
            cold.append(run_ours(text, folder / f"cold-{number}", caches, number, options))
            print("ours, cold", cold[-1], flush=True)
            warm.append(run_ours(text, folder / f"warm-{number}", caches, number, options))
            print("ours, warm", warm[-1], flush=True)
    publish("time_to_loss", reached(theirs, cold, warm), compared(theirs, cold, warm), options)


def compared(theirs: list[Run], cold: list[Run], warm: list[Run]) -> list[Row]:
    def row(what: str, ours: list[Run], column: str, at_least: float) -> Row:
        us, them = (measured(runs, column) for runs in (ours, theirs))
        return Row(what, us, them, them.values["s"] / us.values["s"], at_least)

    return [
        row("seconds in steps", [*cold, *warm], "in_steps", 5),
        row("from command to loss, empty caches", cold, "whole", 2),
        row("from command to loss, again", warm, "whole", 3),
    ]


def measured(runs: list[Run], column: str) -> Measured:
    """Medians; of the losses the worst."""
    run = runs[0]
    how = "compiled" if run.compiled else "not compiled"
    return Measured(
        f"{run.steps:,} planned steps of {run.parameters:,} parameters, {how}",
        {
            "s": statistics.median(getattr(run, column) for run in runs),
            "loss, whole validation part, the worst": max(run.loss for run in runs),
        },
    )


def reached(theirs: list[Run], cold: list[Run], warm: list[Run]) -> str:
    """Whether the comparison is fair."""
    target = min(PUBLISHED, *(run.loss for run in theirs))
    all_did = max(run.loss for run in (*cold, *warm)) <= target
    small = max(run.parameters for run in (*cold, *warm)) <= MOST_PARAMETERS
    return (
        f"Loss to reach: {target:.4f}, {'reached' if all_did else 'NOT REACHED'} in every run of"
        f" ours; parameters at most {MOST_PARAMETERS:,}: {'yes' if small else 'NO'}. {len(theirs)}"
        f" runs of nanoGPT's README for CPUs, {len(cold)} each of ours, interleaved, medians."
    )


if __name__ == "__main__":
    main()
