"""The README's first command, timed from a cold start, and what its model writes.

    python benchmarks/default_run.py [further options of fit]

Trains `configs/stdlib.yaml` in a folder of its own, with empty caches of data and of compiled code,
then draws 20 samples with seeds 0 to 19, none left out, and counts how many parse as Python once an
unfinished end (at most three lines) is cut off.
"""

import ast
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

from results import Measured, Row, record

from lightning_embed import load

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = 20


def parses(text: str) -> bool:
    lines = text.splitlines()
    for cut in range(4):
        try:
            ast.parse("\n".join(lines[: len(lines) - cut] if cut else lines))
        except (SyntaxError, ValueError):
            continue
        return bool(lines[: len(lines) - cut])
    return False


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "train.py", "fit", "--config", "configs/stdlib.yaml"]
        command += ["--trainer.default_root_dir", f"{folder}/runs"]
        command += ["--data.cache_dir", f"{folder}/cache", *sys.argv[1:]]
        began = time.perf_counter()
        lines = []
        first_loss = 0.0
        with subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"TMPDIR": folder, "TORCHINDUCTOR_CACHE_DIR": f"{folder}/compiled"},
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", flush=True)
                lines.append(line.rstrip())
                if "first loss" in line:
                    first_loss = time.perf_counter() - began
        if process.returncode:
            raise SystemExit(process.returncode)
        took = time.perf_counter() - began
        best = next(Path(folder).glob("runs/*/checkpoints/best.ckpt"))
        texts = load(best, device="cpu").generate([""] * SAMPLES)
    good = sum(map(parses, texts))
    for number, text in enumerate(texts):
        verdict = "parses" if parses(text) else "does not parse"
        print(f"\nSample {number} ({verdict}):\n\n{textwrap.indent(text, '    ')}")
    took_row = Row(
        "from the command to the end",
        Measured("empty caches", {"s": took, "s to the first loss": first_loss}),
    )
    samples = Row(
        f"{SAMPLES} samples",
        Measured("temperature 0.8, top-k 50, 200 tokens", {"parse as Python": good}),
    )
    how = " ".join(["configs/stdlib.yaml", *sys.argv[1:]])
    record("default_run", f"{how}.", [*rows(lines), took_row, samples])


def rows(lines: list[str]) -> list[Row]:
    """The run's own figures, out of what it printed."""

    def figure(pattern: str) -> float:
        found = next(filter(None, (re.search(pattern, line) for line in lines)))
        return float(found[1].replace(",", ""))

    bits, xz = figure(r"bits per byte ([\d.]+)"), figure(r"([\d.]+) after the training text")
    seed = figure(r"^run .* seed (\d+)")
    loss = figure(r"validation loss ([\d.]+)")
    return [
        Row(
            f"held-out bits per byte, seed {seed:.0f}",
            Measured("the best checkpoint", {"bits per byte": bits, "validation loss": loss}),
            Measured(
                "xz -9e with the whole training text as its dictionary", {"bits per byte": xz}
            ),
            bits / xz,
        ),
        Row(
            "speed over the whole run",
            Measured("", {"real tokens/s": 1000 * figure(r"^speed +([\d.]+) k real tok/s")}),
        ),
    ]


if __name__ == "__main__":
    main()
