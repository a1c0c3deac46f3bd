"""Side by side: starts the programs that a benchmark compares, and lets them take turns.

The programs are `side_ours.py`, `side_nanogpt.py` and `side_transformers.py`, which wait and time
with `turns.py`. Here too are the options all such scripts share, and text that both sides train on.

How to get the peers, which are no part of this project:

- nanoGPT: a copy of the repository karpathy/nanoGPT on GitHub in a folder of its own, given as
  `--nanogpt DIR`; it runs with this project's Python.
- Hugging Face's Trainer: a virtual environment of its own with the packages torch (this project's
  version), transformers and accelerate, whose Python is given as `--peers-python PATH`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from getpass import getuser
from pathlib import Path
from typing import Any, NamedTuple

import torch
from results import Measured, Row, record
from turns import MARK

from lightning_embed.arithmetic import fastest_format

# Our whole program as it is, and as what the Trainer's side trains.
WAYS = {
    "the default": (),
    "a Llama with AdamW": ("--model.qk_norm=false", "--model.optimizer=adamw"),
}

PRECISIONS = {"bfloat16": "bf16-mixed", "float32": "32-true"}  # as Lightning names them

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


def environment(threads: int, **more: str) -> dict[str, str]:
    """A side's: threads, and where its modules are. An emulated side keeps what it compiles to
    itself: torch's cache does not tell it from the machine's own, and losses become NaN."""
    if capability := os.environ.get("ATEN_CPU_CAPABILITY"):
        cache = Path(tempfile.gettempdir()) / f"torchinductor-{getuser()}-{capability}"
        more = {"TORCHINDUCTOR_CACHE_DIR": str(cache)} | more
    return os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(HERE))),
        **more,
    }


class Turn(NamedTuple):
    seconds: float
    processor: float  # seconds, of all threads: what is left to compare where neighbours are busy
    tokens: int
    steps: int

    @property
    def rate(self) -> float:
        """Real tokens a second."""
        return self.tokens / self.seconds

    @property
    def step(self) -> float:
        return self.seconds / self.steps


class Side:
    """A program that warms up, then times a turn whenever it is asked to.

    Args:
        name: what it is and its settings, in words.
        script: in this folder.
        settings: what the script is asked.
        python: that runs it.
        threads: that it computes with.
    """

    def __init__(
        self, name: str, script: str, settings: dict[str, Any], *, python: str, threads: int
    ) -> None:
        self.name, self.about = name, dict[str, Any]()
        self.turns: list[Turn] = []
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [python, str(HERE / script), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=ROOT,
            env=environment(threads),
        )

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(MARK):
                answer: dict[str, Any] = json.loads(line.removeprefix(MARK))
                return answer
            self._log.write(line)
        self._log.seek(0)
        raise SystemExit(f"{self.name} ended before its turn:\n{self._log.read()[-4000:]}")

    def warm_up(self) -> None:
        self.about = self._answer()

    def take_turn(self) -> None:
        assert self._process.stdin is not None
        print("go", file=self._process.stdin, flush=True)
        self.turns.append(Turn(**self._answer()))

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    # Medians over turns

    @property
    def rate(self) -> float:
        return statistics.median(turn.rate for turn in self.turns)

    @property
    def thrift(self) -> float:
        """Real tokens for a second of processor."""
        return statistics.median(turn.tokens / turn.processor for turn in self.turns)

    @property
    def step(self) -> float:
        return statistics.median(turn.step for turn in self.turns)

    def measured(self) -> Measured:
        values = {
            "real tokens/s": self.rate,
            "ms a step": 1000 * self.step,
            "real tokens for a second of processor": self.thrift,
            "parameters": self.about["parameters"],
        }
        return Measured(self.name, values)

    def faster_than(self, other: "Side") -> float:
        """Median over the rounds of our rate to theirs: turns of one round are neighbours."""
        pairs = zip(self.turns, other.turns, strict=True)
        return statistics.median(a.rate / b.rate for a, b in pairs)

    def slower_step_than(self, other: "Side") -> float:
        """The same of the time of a step."""
        pairs = zip(self.turns, other.turns, strict=True)
        return statistics.median(a.step / b.step for a, b in pairs)

    def compared(self, what: str, other: "Side", at_least: float | None) -> Row:
        """A row that says how much faster this is than the other."""
        ratio = self.faster_than(other)
        return Row(what, self.measured(), other.measured(), ratio, at_least)


class Sides:
    """The programs of one table: each is warmed up alone, then they take turns.

    Args:
        options: of `parse`.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self._all: list[Side] = []
        self._stack = ExitStack()

    def __enter__(self) -> "Sides":
        return self

    def __exit__(self, *args: object) -> None:
        self._stack.close()

    def add(self, name: str, script: str, python: str | None = None, **settings: Any) -> Side:
        side = Side(
            name,
            script,
            {"warm": self.options.warm, "steps": self.options.steps} | settings,
            python=python or sys.executable,
            threads=self.options.threads,
        )
        self._stack.callback(side.end)
        print(f"warming up: {name}", flush=True)
        side.warm_up()
        self._all.append(side)
        return side

    def add_best(self, name: str, script: str, python: str | None = None, **settings: Any) -> Side:
        """A peer in the faster of the formats there are to choose from, by one turn of each.

        Args:
            name: with a place for the format, `{}`.
        """
        tried = [
            self.add(name.format(numbers), script, python, format=numbers, **settings)
            for numbers in self.options.formats
        ]
        if len(tried) == 1:
            return tried[0]
        for side in tried:
            side.take_turn()
            print(f"{side.name}: {side.rate:,.0f} real tokens/s", flush=True)
        best = max(tried, key=lambda side: side.rate)
        best.turns.clear()
        for side in tried:
            if side is not best:
                self._all.remove(side)
                side.end()
        return best

    def measure(self) -> None:
        for number in range(self.options.repeats):
            for side in self._all:
                side.take_turn()
            rates = ", ".join(f"{side.name} {side.turns[-1].rate:,.0f}" for side in self._all)
            print(f"round {number + 1}, real tokens/s: {rates}", flush=True)


def parser(
    doc: str | None, *, warm: int = 0, steps: int = 0, formats: bool = False
) -> argparse.ArgumentParser:
    """The options all scripts share; a script adds its own and calls `parse`. Those whose sides
    take turns say how many steps they warm up and how many a turn has, and those that may choose
    the number format say so."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--repeats", type=int, default=5, help="rounds of interleaved turns")
    made.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    if steps:
        made.add_argument("--warm", type=int, default=warm, help="steps that are not timed")
        made.add_argument("--steps", type=int, default=steps, help="steps of a turn")
    if formats:
        made.add_argument(
            "--format", choices=PRECISIONS, help="of all sides; unset, of each the fastest here"
        )
    made.add_argument("--quick", action="store_true", help="two short rounds, nothing recorded")
    return made


def parse(made: argparse.ArgumentParser) -> argparse.Namespace:
    options = made.parse_args()
    if options.quick:
        options.repeats = 2
        if "steps" in options:
            options.warm, options.steps = min(options.warm, 6), 5
    torch.set_num_threads(options.threads)  # what a record says
    if "format" in options:
        fastest = fastest_format("cpu").name
        fast = ["float32"] if fastest == "float32" else [fastest, "float32"]
        options.formats = [options.format] if options.format else fast  # a peer's to choose from
        options.format = options.formats[0]  # ours
    return options


def in_format(options: argparse.Namespace) -> list[str]:
    """The flags of a fit in the format that was chosen."""
    numbers = options.format
    return [f"--trainer.precision={PRECISIONS[numbers]}", f"--model.muon_dtype={numbers}"]


def publish(table: str, how: str, rows: list[Row], options: argparse.Namespace) -> None:
    """Record the rows, or only show them when it was a try."""
    numbers = getattr(options, "format", None)
    record(table, how, rows, keep=not options.quick, numbers=numbers)


def rounds(options: argparse.Namespace) -> str:
    """How often it was measured, in words."""
    return f"Medians of {options.repeats} rounds of {options.steps} steps after {options.warm}."


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for runs, caches and texts, gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def library_text(folder: Path) -> Path:
    """The default corpus' training part as one file of text: a document without an end, so that all
    its windows are full."""
    from lightning_embed.sources.corpus import StdlibCorpus
    from lightning_embed.tokens.prepared import open_prepared, prepare

    prepared = open_prepared(
        prepare(StdlibCorpus(), folder / "cache", tokenizer="bpe", vocab_size=4096)
    )
    prepared.tokenizer.save(folder / "tokenizer.json")
    text = folder / "library.txt"
    text.write_bytes(prepared.train.text_file.read_bytes())
    return text
