"""Small runs of the command line in processes of their own, which a test can watch and kill.

Corpus, network and options are those of `tests/workshop.py`. A child finds callbacks of the tests,
named as `workshop.SignalAt` or `soak.observers.Batches`, through its PYTHONPATH.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from workshop import APART, ROOT, Outcome, Workshop, write_corpus


def child_environment(more: Mapping[str, str] | None, threads: int) -> dict[str, str]:
    paths = [str(ROOT / "tests"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": str(threads),
        **(more or {}),
    }


class Process:
    """`python train.py ARGS...`, running; what it writes goes to files."""

    def __init__(self, args: list[str], log: Path, environment: dict[str, str]) -> None:
        self.log, self.errors = log.with_suffix(".out"), log.with_suffix(".err")
        self.began = time.monotonic()
        with open(self.log, "w") as out, open(self.errors, "w") as err:
            self.child = subprocess.Popen(
                [sys.executable, str(ROOT / "train.py"), *args],
                stdout=out,
                stderr=err,
                env=environment | {"COLUMNS": APART["COLUMNS"]},
                cwd=ROOT,
                start_new_session=True,  # so that processes it starts can be ended with it
            )

    @property
    def running(self) -> bool:
        return self.child.poll() is None

    def has_said(self, text: str) -> bool:
        return text in self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, text: str) -> bool:
        """Whether it said so before it ended."""
        while self.running:
            if self.has_said(text):
                return True
            time.sleep(0.005)
        return self.has_said(text)

    def kill(self) -> None:
        """SIGKILL, which nothing in the process can answer, also to those it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()

    def outcome(self, seconds: float = 600) -> Outcome:
        """Wait for the end; a child that does not end is killed, and its status says so."""
        try:
            self.child.wait(seconds)
        except BaseException as error:
            self.kill()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
        return Outcome(
            self.child.returncode,
            self.log.read_text(encoding="utf-8", errors="replace"),
            self.errors.read_text(encoding="utf-8", errors="replace"),
        )


class SmallRuns(Workshop):
    """A corpus and a folder for runs below `folder`.

    Args:
        folder: an empty one.
        documents: how many, of 10 to 120 words.
        options: of every command.
        root: where runs go, if not below `folder`.
    """

    def __init__(
        self,
        folder: Path,
        documents: int = 30,
        options: tuple[str, ...] = (),
        root: Path | None = None,
    ) -> None:
        files = write_corpus(folder / "corpus", documents)
        super().__init__(files, folder / "cache", root or folder / "runs")
        self.options, self.logs, self._started = options, folder / "logs", 0
        self.logs.mkdir(parents=True)

    def start(
        self,
        *args: str | Path,
        threads: int = 1,
        environment: Mapping[str, str] | None = None,
    ) -> Process:
        """A command that trains or evaluates, in a process of its own; args[0] names it."""
        pictures = ("--pages.pictures", "true")  # as users have it: they may be the last to write
        command = self.arguments(str(args[0]), *pictures, *self.options, *args[1:])
        return self.start_plain(*command, threads=threads, environment=environment)

    def start_plain(
        self,
        *args: str | Path,
        threads: int = 1,
        environment: Mapping[str, str] | None = None,
    ) -> Process:
        """Any command, with just these arguments."""
        self._started += 1
        log = self.logs / f"{self._started:03}"
        return Process([*map(str, args)], log, child_environment(environment, threads))

    def must_succeed(self, *args: str | Path, **settings: Any) -> Outcome:
        told = self.start(*args, **settings).outcome()
        assert told.status == 0, told.out + told.err
        return told

    def newest(self, name: str) -> Path:
        """The folder of the newest run of a name: `<name>`, or `<name>-2` and so on."""
        found = [path for path in self.root.glob(f"{name}*") if path.is_dir()]
        return max(found, key=lambda path: (len(path.name), path.name))


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Where two checkpoints, or parts of them, are not bitwise the same."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        alike = one.dtype == other.dtype and one.shape == other.shape and same_bits(one, other)
        return [] if alike else [place]
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return [f"{place}: other keys"]
        return [d for key in one for d in differences(one[key], other[key], f"{place}/{key}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, f"{place}/{i}")]
    return [] if one == other else [place]


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Also tells -0 from +0, and takes a NaN for itself."""
    pair = (x.detach().contiguous().reshape(-1).view(torch.uint8) for x in (one, other))
    return torch.equal(*pair)
