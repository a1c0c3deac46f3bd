"""Tiny Shakespeare by characters at the size of nanoGPT's CPU example.

    python benchmarks/shakespeare.py input.txt

The text (1,115,394 characters; char-rnn's `input.txt`) is not part of this project. nanoGPT's
README gives the setting (4 layers, 4 heads, width 128, context 64, 12 rows, 2,000 steps); its own
run reaches 1.886 over the whole validation part in non-overlapping windows of 64.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from results import Measured, Row, record

ROOT = Path(__file__).resolve().parent.parent
NANOGPT = 1.886


def report(lines: list[str], took: float) -> None:
    """Record a run's loss beside nanoGPT's."""
    loss = next(
        float(line.split("validation loss")[1].split()[0])
        for line in lines
        if "held out" in line[:9]
    )
    row = Row(
        "validation loss to nanoGPT's",
        Measured("configs/shakespeare_char.yaml", {"loss": loss, "s from command to end": took}),
        Measured("nanoGPT's README for CPUs", {"loss": NANOGPT}),
        loss / NANOGPT,
    )
    how = "4 layers, width 128, 2,000 steps of 768 characters; over the whole validation part."
    record("shakespeare", how, [row])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "train.py", "fit", "--config", "configs/shakespeare_char.yaml"]
        command += ["--data.files", str(Path(sys.argv[1]).resolve()), *sys.argv[2:]]
        command += ["--trainer.default_root_dir", f"{folder}/runs"]
        command += ["--data.cache_dir", f"{folder}/cache"]
        began = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        took = time.perf_counter() - began
    print(done.stdout)
    report(done.stdout.splitlines(), took)


if __name__ == "__main__":
    main()
