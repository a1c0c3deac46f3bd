"""What is known of a run from its folder: when, how far, how well, and how it stands."""

import errno
import os
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lightning_embed.atomic import is_running
from lightning_embed.checkpointing.run_json import CLAIM, about, starts
from lightning_embed.comparing.history import EVENT_FILES, History, read_history
from lightning_embed.comparing.settings import read_settings
from lightning_embed.console import printable

State = Literal["running", "stopped", "finished", "damaged"]
FRESH = 300  # seconds; TensorBoard's files are written to every 120 at the latest


class Skipped(NamedTuple):
    """A folder that is no run, and why."""

    folder: Path
    why: str


@dataclass(frozen=True)
class Record:
    """A run.

    Attributes:
        label: its folder's name, with those above it where several have the same.
        began: in seconds since 1970, if that is known.
        problem: what of it cannot be read, in a few words.
        lossy: its tokenizer does not keep all text, so that its bits per byte compare with few.
        loss, bits_per_byte: of all held-out text where the run has ended, else at the latest
            validation.
        tokens_per_second: real ones, over the whole run, validations aside.
    """

    folder: Path
    label: str
    began: float | None
    state: State
    parameters: int | None = None
    lossy: bool = False
    problem: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    history: History = field(default_factory=History)

    @property
    def steps(self) -> int | None:
        """The last one that was logged; None of a run without event files."""
        return self.history.last.step if self.history.last else None

    @property
    def minutes(self) -> float | None:
        """Of training and its validations, without what was done twice."""
        seconds = [points[-1].seconds for points in self.history.series.values()]
        return max(seconds) / 60 if seconds else None

    @property
    def loss(self) -> float | None:
        return self._latest("held_out_loss", "validation")

    @property
    def bits_per_byte(self) -> float | None:
        return self._latest("held_out_bits_per_byte", "bits_per_byte")

    @property
    def tokens_per_second(self) -> float | None:
        return self.history.tokens_per_second()

    def _latest(self, final: str, between: str) -> float | None:
        """The final figure, unless the run has gone on since."""
        found = self.history.series.get(final)
        if found and found[-1].step == self.steps:
            return found[-1].value
        return self.history.value(between)


def read_runs(folders: list[Path]) -> tuple[list[Record], list[Skipped]]:
    """All runs in these folders, which may be runs themselves, and what in them is none."""
    found: list[Record] = []
    skipped: list[Skipped] = []
    for folder in _candidates(folders, skipped):
        try:
            record: Record | Skipped = _read(folder)
        except OSError as error:
            record = Skipped(folder, _why(error))
        except UnicodeEncodeError:  # TensorBoard opens no such file
            record = Skipped(folder, "its name is not UTF-8")
        if isinstance(record, Skipped):
            skipped.append(record)
        else:
            found.append(record)
    labels = _told_apart([record.folder for record in found])
    return [replace(record, label=x) for record, x in zip(found, labels, strict=True)], skipped


def _candidates(folders: list[Path], skipped: list[Skipped]) -> Iterator[Path]:
    """The folders themselves, or those in them, each once."""
    seen = set()
    for folder in folders:
        try:
            inside = sorted(path for path in folder.iterdir() if path.name[0] != ".")
            alone = _looks_like_a_run(folder)
        except OSError as error:
            skipped.append(Skipped(folder, _why(error)))
            continue
        paths = [folder] if alone else [path for path in inside if path.is_dir()]
        if not paths:
            skipped.append(Skipped(folder, "no run is in it"))
        for path in paths:
            if (place := path.resolve()) not in seen:
                seen.add(place)
                yield path


def _looks_like_a_run(folder: Path) -> bool:
    own = (folder / CLAIM).is_file() or (folder / "config.yaml").is_file()
    return own or any(folder.glob(EVENT_FILES))


def _read(folder: Path) -> Record | Skipped:
    if not any(folder.iterdir()):
        return Skipped(folder, "it is empty")
    claimed, configured = (folder / CLAIM).is_file(), (folder / "config.yaml").is_file()
    said = about(folder)
    began = starts(said)
    problem, settings = None, dict[str, Any]()
    if claimed and not began:
        problem = f"{CLAIM} cannot be read"
    if configured:
        try:
            settings = read_settings(folder)
        except ValueError as error:
            problem = str(error)
    if not began and not settings and (said or configured or not claimed):
        return Skipped(folder, "it is no run of lightning_embed")
    history = read_history(folder, began)
    if history.damaged is not None:
        problem = f"{history.damaged} is damaged"
    problem = problem or _damaged_checkpoint(folder)
    count = said.get("parameters")
    return Record(
        folder=folder,
        label=folder.name,
        began=began[0] if began else min(_times(folder), default=None),
        state="damaged" if problem else _state(folder, said, history),
        parameters=count if isinstance(count, int) else None,
        lossy=said.get("lossy") is True,
        problem=problem,
        settings=settings,
        history=history,
    )


def _state(folder: Path, said: dict[str, Any], history: History) -> State:
    if "finished" in said:
        return "finished"
    running = is_running(str(said.get("process")))
    if running is None:  # on another host, or of a version that did not write it
        final = history.series.get("held_out_loss")
        if final and history.last and final[-1].step == history.last.step:
            return "finished"
        running = time.time() - max(_times(folder), default=0.0) < FRESH
    return "running" if running else "stopped"


def _damaged_checkpoint(folder: Path) -> str | None:
    """Whether one is not even whole at its end; checksums are left to whoever loads it."""
    for path in sorted((folder / "checkpoints").glob("*.ckpt")):
        if path.name[0] != "." and path.is_file() and not zipfile.is_zipfile(path):
            return f"{path.name} is damaged"
    return None


def _times(folder: Path) -> list[float]:
    """When the files in it were last written to."""
    found = []
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # a running run's, just renamed
            found.append(path.stat().st_mtime)
    return found


def _told_apart(folders: list[Path]) -> list[str]:
    """Their names, with as many folders before them as it takes; fit for a terminal."""
    parts = 1
    paths = [Path(os.path.abspath(folder)).parts for folder in folders]
    while len({path[-parts:] for path in paths}) < len(set(paths)):
        parts += 1
    return [printable("/".join(path[-parts:])) for path in paths]


def _why(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return "this user may not read it"
    return (error.strerror or str(error)).lower()
