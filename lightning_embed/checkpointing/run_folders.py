"""Folders of runs: claiming a new one, finding one again, and which checkpoint in it is meant.

    runs/NAME/  runs/NAME-2/ ...    one folder a run of that name
        run.json                    whose run this is and when it was started, also anew
        checkpoints/                last.ckpt, previous.ckpt, best.ckpt
        config.yaml  tokenizer.json  TensorBoard's event files

A folder is claimed by creating `run.json`, which the file system lets one process do, on another
host too. A run is known by what stands in that file, wherever its folder was moved or renamed to.
"""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from lightning_embed.atomic import owner, remove, replacing
from lightning_embed.checkpointing.compatibility import Candidate, Purpose, check
from lightning_embed.checkpointing.run_json import CLAIM, ROOT, about, run_name, starts
from lightning_embed.console import say
from lightning_embed.errors import UserError, writing


@dataclass(frozen=True)
class Run:
    """Where a run writes, and what it begins from."""

    folder: Path
    checkpoint: Path | None = None

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def note_start(self) -> None:
        """Write down that the run is gone on with now, by this process: it is the latest of its
        name."""
        before = {"name": self.folder.name} | about(self.folder)
        before.pop("finished", None)
        self._write(
            before | {"starts": [*before.get("starts", []), time.time()], "process": owner()}
        )

    def note(self, **facts: Any) -> None:
        """Write down what `runs` tells of this run: its `parameters`, whether its tokenizer is
        `lossy`, when it `finished`."""
        self._write(about(self.folder) | facts)

    def _write(self, content: dict[str, Any]) -> None:
        with replacing(self.folder / CLAIM) as file:
            file.write_text(json.dumps(content), encoding="utf-8")

    def release(self) -> None:
        """Give a claimed folder back if nothing was written into it."""
        if self.folder.is_dir() and [file.name for file in self.folder.iterdir()] == [CLAIM]:
            remove(self.folder)
            with suppress(OSError):  # it holds other runs
                self.folder.parent.rmdir()

    def discard(self) -> None:
        """Where a run begins anew: remove the folder that was claimed for it, with what it has
        written there. One that it goes on in is kept."""
        if self.checkpoint is None or run_of(self.checkpoint) != self.folder:
            remove(self.folder)


def claim(root: Path, name: str) -> Run:
    """A folder for a new run: `root/name`, or the first free of `name-2`, `name-3`, ..."""
    require_plain_name(name)
    for number in count(1):
        folder = root / (name if number == 1 else f"{name}-{number}")
        if _claim(folder, name):
            if number > 1:
                say("note", f"{root / name} exists, this run goes to {folder}")
            return Run(folder)
    raise AssertionError("numbers have no end")


def _claim(folder: Path, name: str) -> bool:
    with writing(folder, "--trainer.default_root_dir"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                return False
            file = open(folder / CLAIM, "x", encoding="utf-8")  # noqa: SIM115
        except FileExistsError:
            if folder.parent.is_dir():  # a file of that name, or another process was first
                return False
            raise
        try:
            with file:
                json.dump({"name": name, "starts": [time.time()], "process": owner()}, file)
        except OSError:
            Run(folder).release()
            raise
    return True


def require_plain_name(name: str) -> None:
    if not name or Path(name).name != name or name.startswith("."):
        raise UserError(f"--name {name!r} must be a plain folder name")


def runs_named(root: Path, name: str | None) -> Iterator[Path]:
    """Folders of the runs called `name`, or of all runs, the latest started first."""
    folders = [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    found = [path for path in folders if name is None or is_named(path, name)]
    return iter(sorted(found, key=_started, reverse=True))


def is_named(folder: Path, name: str) -> bool:
    """Whether a run goes by this name: it was started under it, or its folder is called so now."""
    return name in (run_name(folder), folder.name)


def _started(folder: Path) -> float:
    found = starts(about(folder))
    return found[-1] if found else folder.stat().st_mtime


# Checkpoints -------------------------------------------------------------------------------------


def find_checkpoint(
    wanted: str, purpose: Purpose, root: Path = ROOT, name: str | None = None
) -> Path:
    """The checkpoint that is meant, for every command alike.

    Args:
        wanted: "last" or "best" of the latest run called `name`; a run's folder, whose newest
            serves to train on and whose best otherwise; or a checkpoint's own path.
        purpose: what it is for.
        root, name: of runs; without a name the latest run of any.

    Raises:
        UserError: there is none; never a silent start from scratch.
    """
    if not wanted:  # a shell's variable that is not set
        raise UserError("the checkpoint's path is empty: give a file, a run's folder, last or best")
    if wanted == "last":
        return _newest(runs_named(root, name), f"{_called(name)} under {root}", purpose)
    if wanted == "best":
        for folder in runs_named(root, name):
            return _best(folder)
        raise _none(f"{_called(name)} under {root}", purpose)
    path = Path(wanted)
    folder = path.parent if path.name == "checkpoints" else path
    if path.is_dir() and (folder / "checkpoints").is_dir():
        train = purpose == "train"
        return _newest(iter([folder]), str(folder), purpose) if train else _best(folder)
    if path.is_dir() and (path / CLAIM).is_file():
        raise _none(str(path), purpose)
    return path


def _called(name: str | None) -> str:
    return "any run" if name is None else f"a run named {name!r}"


def _none(where: str, purpose: Purpose) -> UserError:
    afresh = ", or leave out --ckpt_path to start afresh, or name the run with --name"
    return UserError(
        f"no checkpoint of {where}; give a checkpoint or a run's folder"
        f"{afresh if purpose == 'train' else ''}"
    )


def _best(folder: Path) -> Path:
    best = folder / "checkpoints" / "best.ckpt"
    if best.exists():
        return best
    newest = _newest(iter([folder]), str(folder), "evaluate")
    say("note", f"no validation has chosen a best checkpoint yet: {newest} is taken")
    return newest


def _newest(folders: Iterator[Path], where: str, purpose: Purpose) -> Path:
    """The newest whole checkpoint of the first run that has one; others are named."""
    refused: list[UserError] = []
    for folder in folders:
        whole = []
        files = [file for file in (folder / "checkpoints").glob("*.ckpt") if file.name[0] != "."]
        for file in files:
            candidate = Candidate(file, "evaluate")
            try:
                check(candidate, "file", "content")
                whole.append((_progress(candidate), file))
            except UserError as error:
                refused.append(error)
        if whole:
            for reason in refused:
                say("warning", f"passed over: {reason}")
            return max(whole)[1]
        if refused:
            raise refused[0]
    raise _none(where, purpose)


def _progress(candidate: Candidate) -> tuple[int, int]:
    """Steps done; at equal steps the later file, which may know of a validation."""
    step: int = candidate.checkpoint.get("global_step", -1)
    return step, candidate.path.stat().st_mtime_ns


def run_of(checkpoint: Path) -> Path | None:
    """The run's folder that a checkpoint lies in."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else None


def choose_run(
    root: Path, name: str, *, given: bool, ckpt_path: str | None, purpose: Purpose, claims: bool
) -> Run:
    """The folder and the checkpoint that a command works with.

    Args:
        root: folder of all runs.
        name: of the run.
        given: the user named it, so that a checkpoint of another run goes on in a new folder.
        ckpt_path: see `find_checkpoint`; unset, training starts afresh and evaluation takes "best".
        purpose: "train" claims a folder unless it goes on in one.
        claims: this process may; the others learn the folder from it (`checkpointing/save.py`).
    """
    require_plain_name(name)
    trains = purpose == "train"
    if ckpt_path is None and trains:
        return claim(root, name) if claims else Run(root / name)
    checkpoint = find_checkpoint("best" if ckpt_path is None else ckpt_path, purpose, root, name)
    folder = run_of(checkpoint)
    elsewhere = given and folder is not None and not is_named(folder, name)
    if folder is not None and not (trains and elsewhere):
        return Run(folder, checkpoint)
    check(Candidate(checkpoint, purpose), "file")  # before a folder is made for it
    if not trains:
        return Run(checkpoint.parent, checkpoint)
    return Run((claim(root, name) if claims else Run(root / name)).folder, checkpoint)
