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

from results import record

ROOT = Path(__file__).resolve().parent.parent
NANOGPT = 1.886


def report(lines: list[str], took: float) -> None:
    """Append a run's lines, and how its loss compares."""
    loss = next(
        float(line.split("validation loss")[1].split()[0])
        for line in lines
        if "held out" in line[:9]
    )
    transcript = "\n".join(f"    {line}" for line in lines)
    record(
        "Tiny Shakespeare, nanoGPT's CPU setting",
        f"Validation loss {loss:.4f} over the whole validation part (nanoGPT {NANOGPT}),"
        f" {took:.0f} s from command to end.\n\n{transcript}",
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "train.py", "fit", "--config", "configs/shakespeare_char.yaml"]
        command += ["--data.files", str(Path(sys.argv[1]).resolve()), *sys.argv[2:]]
        command += ["--trainer.default_root_dir", f"{folder}/runs"]
        command += ["--data.cache_dir", f"{folder}/cache"]
        began = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        took = time.perf_counter() - began
    report(done.stdout.replace(folder, ".").splitlines(), took)


if __name__ == "__main__":
    main()
