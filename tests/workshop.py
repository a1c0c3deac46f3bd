"""Running the command line as users do: in this process where that will do, else in its own."""

import io
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch

from lightning_embed.cli import main
from lightning_embed.sources.files import FilesCorpus

ROOT = Path(__file__).parent.parent
APART = {"OMP_NUM_THREADS": "1", "COLUMNS": "1000"}  # lines that are looked for are not cut
TINY = (
    *("--model.d_model", "32", "--model.n_layers", "2", "--model.n_heads", "2"),
    *("--model.compile", "false", "--data.max_length", "32", "--data.tokens_per_batch", "256"),
    *("--trainer.precision", "32-true", "--samples.max_new_tokens", "5"),
    *("--trainer.accelerator", "cpu", "--data.vocab_size", "400"),
    *("--pages.pictures", "false"),  # which take longer than a short run
)


class Outcome(NamedTuple):
    """How a command ended and what it wrote."""

    status: int
    out: str
    err: str

    def line(self, start: str) -> str:
        """The rest of the first line that begins so, spaces aside; of a command all its lines."""
        for line in re.sub(r"\\\n +", "", self.out).splitlines():
            if line.strip().startswith(start):
                return line.strip().removeprefix(start).strip()
        raise AssertionError(f"no line begins with {start!r} in:\n{self.out}{self.err}")

    def error_line(self) -> str:
        """The only line on standard error, which tells of a mistake."""
        assert self.status != 0, self.out
        lines = self.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: "), self.err
        assert "Traceback" not in self.out and "usage:" not in self.out
        return lines[0].removeprefix("error: ")


def run(*args: str | Path) -> Outcome:
    """`python train.py ARGS...`, in this process."""
    out, err = io.StringIO(), io.StringIO()
    environment, deterministic = dict(os.environ), torch.are_deterministic_algorithms_enabled()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            try:
                status = main([str(arg) for arg in args])
            except SystemExit as ended:
                status = ended.code if isinstance(ended.code, int) else 1
    finally:
        if torch.distributed.is_initialized():  # the next command is a run of its own
            torch.distributed.destroy_process_group()
        os.environ.clear()
        os.environ.update(environment)
        torch.use_deterministic_algorithms(deterministic)
    return Outcome(status, out.getvalue(), err.getvalue())


def run_apart(
    *args: str | Path, seconds: float = 120, environment: dict[str, str] | None = None
) -> Outcome:
    """`python train.py ARGS...` in a process of its own, on one thread."""
    found = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=seconds,
        env=os.environ | APART | (environment or {}),
        cwd=ROOT,
    )
    return Outcome(found.returncode, found.stdout, found.stderr)


def write_corpus(folder: Path, documents: int = 30, seed: int = 0) -> str:
    """Short text files of made-up words, and the glob that names them."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcdefghij", k=draw.randint(2, 6))) for _ in range(60)]
    for number in range(documents):
        text = " ".join(draw.choices(words, k=draw.randint(10, 120)))
        (folder / f"doc{number:02}.txt").write_text(f"{text}.\n", encoding="utf-8")
    return str(folder / "*.txt")


def load(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint as anybody reads it, without this package."""
    loaded: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return loaded


def padding_is_zero(checkpoint: Path) -> bool:
    """Whether the row is there and every bit in it is 0."""
    row = load(checkpoint)["state_dict"]["model.embedding.weight"][1]
    bits = row.view(torch.int16 if row.element_size() == 2 else torch.int32)
    return row.numel() > 0 and not bits.any()


def assert_same_weights(one: Path, other: Path, tolerance: float = 0) -> None:
    """Bitwise, or within an absolute tolerance."""
    mine, theirs = load(one)["state_dict"], load(other)["state_dict"]
    assert mine.keys() == theirs.keys()
    for key, value in mine.items():
        if tolerance:
            torch.testing.assert_close(value, theirs[key], atol=tolerance, rtol=0, msg=key)
        else:
            assert torch.equal(value, theirs[key]), key


def differs(one: Path, other: Path) -> bool:
    mine, theirs = load(one)["state_dict"], load(other)["state_dict"]
    return any(not torch.equal(value, theirs[key]) for key, value in mine.items())


class CountedFiles(FilesCorpus):
    """Files that note, in a file `hashed` beside them, which process hashes them."""

    @cached_property
    def fingerprint(self) -> str:
        with open(Path(self.files[0]).parent / "hashed", "a") as file:
            file.write(os.environ.get("LOCAL_RANK", "0") + "\n")
        return super().fingerprint


class SignalAt(L.Callback):
    """Sends this process a signal in the middle of step `step` (the first is 1)."""

    def __init__(self, step: int, signal_name: str = "SIGTERM") -> None:
        self.step, self.number = step, signal.Signals[signal_name]

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step == self.step - 1:
            signal.raise_signal(self.number)


class SignalInValidation(L.Callback):
    """Sends this process SIGTERM in the middle of the validation after step `step`."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_validation_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.state.fn == "fit" and trainer.global_step == self.step:
            signal.raise_signal(signal.SIGTERM)


class HaltAt(L.Callback):
    """Ends training after step `step`, as a limit of time does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        trainer.should_stop |= trainer.global_step == self.step


class HaltAfter(L.Callback):
    """Ends training some steps after it has begun."""

    def __init__(self, steps: int = 3) -> None:
        self.steps, self.began = steps, 0

    def on_train_start(self, trainer: L.Trainer, *args: Any) -> None:
        self.began = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        trainer.should_stop |= trainer.global_step == self.began + self.steps


class FailAt(L.Callback):
    """An accident: an exception in the middle of step `step` (the first is 1)."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step == self.step - 1:
            raise OSError("the machine caught fire")


class Harm:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


class Workshop:
    """A small corpus and a folder for runs; the cache of tokens is shared by all tests."""

    def __init__(self, files: str, cache: Path, root: Path) -> None:
        self.files, self.cache, self.root = files, cache, root

    @property
    def where(self) -> tuple[str, ...]:
        return (
            *("--data.files", self.files, "--data.cache_dir", str(self.cache)),
            *("--trainer.default_root_dir", str(self.root)),
        )

    def arguments(self, command: str, *more: str | Path) -> list[str]:
        """The workshop's files unless `more` names others, which would be added to them."""
        words = list(map(str, more))
        named = any(word.partition("=")[0] in ("--data.files", "--data.files+") for word in words)
        return [command, *TINY, *self.where[2 if named else 0 :], *words]

    def run(self, command: str, *more: str | Path) -> Outcome:
        return run(*self.arguments(command, *more))

    def fit(self, name: str, *more: str | Path, steps: int | None = None) -> Outcome:
        """A fit that must succeed."""
        limit = ["--trainer.max_steps", str(steps)] if steps else []
        found = self.run("fit", "--name", name, *limit, *more)
        assert found.status == 0, found.out + found.err
        return found

    def checkpoint(self, name: str, kind: str = "last") -> Path:
        return self.root / name / "checkpoints" / f"{kind}.ckpt"

    def runs(self) -> list[str]:
        return sorted(path.name for path in self.root.iterdir()) if self.root.exists() else []


def lines_of(outcomes: Iterable[Outcome]) -> list[str]:
    return [line for outcome in outcomes for line in outcome.out.splitlines()]
