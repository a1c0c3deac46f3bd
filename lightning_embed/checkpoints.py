"""Checkpoint files that are whole or not there.

Knows: writing beside the target and renaming, telling a whole file from a damaged one. Leaves to
others: when to save (Lightning's ModelCheckpoint, `callbacks/signals.py`), what a checkpoint holds
(`lightning_module.py`, `datamodule.py`), where it lies (`runs.py`).
"""

import errno
import os
import pickle
import shutil
import zipfile
import zlib
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
        # Not mkstemp, whose files nobody else may read, whatever the umask says.
        name = target.with_name(f".{target.name}{TEMPORARY}{os.getpid()}")
        try:
            with open(name, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, target)
        except BaseException as error:
            free = shutil.disk_usage(target.parent).free
            name.unlink(missing_ok=True)
            if isinstance(error, RuntimeError) and free < 2**20:  # torch's word for a full disk
                raise OSError(
                    errno.ENOSPC, f"disk full; the checkpoint before is kept: {target}"
                ) from None
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
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return False  # zipfile raises any of these, by where the damage is


def require_whole(path: Path) -> None:
    """Raises ValueError: the file is damaged."""
    if not is_whole(path):
        raise ValueError(
            f"{path} is damaged (not a whole archive, or its checksums do not hold); give another,"
            " or --ckpt_path last for the newest whole one"
        )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds, mapped rather than read; no code in it is run.

    Raises:
        ValueError: it holds more than tensors and plain values, or is no checkpoint of ours.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError):
        raise ValueError(
            f"{path} holds more than tensors and plain values and is not loaded: it could run a"
            " program"
        ) from None
    if not isinstance(saved, dict) or not {"state_dict", "hyper_parameters"} <= saved.keys():
        raise ValueError(f"{path} is not a checkpoint that fit wrote")
    return saved
