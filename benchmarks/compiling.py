"""What compiling takes and gives: from which amount of work on a run on a processor is over sooner.

    python benchmarks/compiling.py [--config FILE] [further options of fit after --]

The same short run, in turn with `--model.compile false` and `true`, each a command of its own; the
compiled ones begin with empty caches, the compiler's headers included. The run's own figures are
taken: seconds of compiling, and FLOP/s of the steps after. `--model.compile auto` decides by
`PAYS_FROM` in `lightning_embed/model/compiling.py`.
"""

import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from peers import ROOT, environment, parse, parser, publish, scratch
from results import Measured, Row

from lightning_embed.model.compiling import PAYS_FROM

CONFIG = "configs/stdlib.yaml"


class Run(NamedTuple):
    compiling: float  # seconds
    rate: float  # 10**9 floating-point operations a second


def once(compiled: bool, arguments: list[str], folder: Path, threads: int) -> Run:
    folder.mkdir()
    done = subprocess.run(
        [
            *(sys.executable, "train.py", "fit", *arguments),
            *("--model.compile", str(compiled).lower()),
            *("--trainer.default_root_dir", str(folder / "runs")),
        ],
        cwd=ROOT,
        env=environment(
            threads, TMPDIR=str(folder), TORCHINDUCTOR_CACHE_DIR=str(folder / "compiled")
        ),
        capture_output=True,
        text=True,
        check=True,
    )
    took = re.search(r"^compile +(\d+) s", done.stdout, re.MULTILINE)
    rate = re.search(r"([\d.]+) GFLOP/s of", done.stdout)
    assert rate is not None and (took is not None) == compiled, done.stdout
    return Run(float(took[1]) if took else 0.0, float(rate[1]))


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--config", default=CONFIG)
    made.add_argument("arguments", nargs="*", help="of fit, after --")
    options = parse(made)
    steps = 30 if options.quick else 160
    runs: dict[bool, list[Run]] = {False: [], True: []}
    with scratch() as folder:
        arguments = [
            *("--config", options.config, "--data.cache_dir", str(folder / "cache")),
            *("--trainer.max_steps", str(steps), "--trainer.limit_val_batches", "0"),
            *options.arguments,
        ]
        for number in range(options.repeats):
            for compiled in runs:
                name = f"{number}-{compiled}"
                runs[compiled].append(once(compiled, arguments, folder / name, options.threads))
                print(name, runs[compiled][-1], flush=True)
    eager, fast = (statistics.median(run.rate for run in runs[compiled]) for compiled in runs)
    took = statistics.median(run.compiling for run in runs[True])
    saved = 1000 / eager - 1000 / fast  # seconds for each 10**12 operations
    row = Row(
        "compiled to eager",
        Measured(
            "--model.compile true, empty caches",
            {
                "GFLOP/s": fast,
                "s of compiling": took,
                "10^12 operations it pays from": took / saved,
            },
        ),
        Measured("--model.compile false", {"GFLOP/s": eager}),
        fast / eager,
    )
    how = (
        f"{options.config}, {steps} steps; {options.repeats} rounds, interleaved, medians."
        f" Compiling takes {took:.0f} s and pays from {took / saved:.0f} * 10^12 operations on; the"
        f" rule's threshold here is {PAYS_FROM * options.threads / 1e12:.0f} * 10^12."
    )
    publish("compiling", how, [row], options)


if __name__ == "__main__":
    main()
