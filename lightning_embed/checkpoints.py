"""Checkpoint files that are whole or not there, and the folders of runs they lie in.

Knows: writing beside the target and renaming, telling a whole file from a damaged one, which run
and which file `last` means. Leaves to others: when to save (Lightning's ModelCheckpoint), what a
checkpoint holds (`lightning_module.py`, `datamodule.py`).
"""

import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

TEMPORARY = ".tmp-"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a temporary file beside the target, syncs it, renames it.

    Lightning's own writes to the system's temporary folder and moves: across file systems a kill or
    a full disk then leaves a damaged file where a good one was.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}{TEMPORARY}", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` last through a power cut, where the platform can."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_whole(path: Path) -> bool:
    """Whether a checkpoint's archive is complete and every checksum in it holds.

    torch.load would load flipped bits without a word.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, ValueError):
        return False


def runs_named(root: Path, name: str) -> Iterator[Path]:
    """Folders of the runs called `name`: root/name, root/name-2, ..., oldest first."""
    number = 1
    while (folder := root / (name if number == 1 else f"{name}-{number}")).exists():
        yield folder
        number += 1


def next_run(root: Path, name: str) -> Path:
    """The folder a fresh run of this name takes; never one that is in use."""
    used = [folder for folder in runs_named(root, name) if any(folder.iterdir())]
    return root / (name if not used else f"{name}-{len(used) + 1}")


def newest_checkpoint(root: Path, name: str) -> tuple[Path, list[Path]]:
    """The newest whole checkpoint of the newest run of this name, and damaged ones passed over.

    Raises:
        FileNotFoundError: there is none; never a silent start from scratch.
    """
    damaged: list[Path] = []
    for folder in reversed(list(runs_named(root, name))):
        files = [f for f in (folder / "checkpoints").glob("*.ckpt") if f.is_file()]
        for file in sorted(files, key=lambda f: f.stat().st_mtime_ns, reverse=True):
            if is_whole(file):
                return file, damaged
            damaged.append(file)
        if files:
            break
    found = f"; damaged: {', '.join(map(str, damaged))}" if damaged else ""
    raise FileNotFoundError(
        f"no checkpoint of a run named {name!r} under {root}{found}; leave out --ckpt_path to start"
        " afresh, or name the run with --name"
    )
