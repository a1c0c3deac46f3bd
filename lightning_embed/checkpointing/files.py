"""Checkpoint files: written whole or not at all, told from damaged ones, read without running code.

Folders of shards are read and checked by `shards.py`, through the same functions.
"""

import errno
import os
import pickle
import shutil
import warnings
import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from lightning_embed.atomic import replacing
from lightning_embed.checkpointing.shards import is_whole_folder, read_meta, read_whole
from lightning_embed.errors import UserError

FULL_BELOW = 2**20  # free bytes below which a failed write is taken for a full disk


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a temporary file beside the target, syncs it, renames it.

    Lightning's own writes to the system's temporary folder and moves: across file systems a kill or
    a full disk then leaves a damaged file where a good one was.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        target = Path(path)
        with replacing(target) as temporary:
            try:
                with open(temporary, "wb") as file:
                    torch.save(checkpoint, file)
                    file.flush()
                    os.fsync(file.fileno())
            except RuntimeError:
                if not is_disk_full(target.parent):
                    raise
                # torch's RuntimeError for a full disk names neither
                raise OSError(errno.ENOSPC, f"disk full; {target} is not written") from None

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """A file or a folder of shards; never anything but tensors and plain values."""
        return read_checkpoint(Path(path))


def is_disk_full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < FULL_BELOW


def is_whole(path: Path | BinaryIO) -> bool:
    """Whether a checkpoint is complete and every checksum in it holds.

    torch.load would load flipped bits without a word.
    """
    if isinstance(path, Path) and path.is_dir():
        return is_whole_folder(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return False  # zipfile raises any of these, by where the damage is


def read_checkpoint(source: Path | BytesIO, name: str | None = None) -> dict[str, Any]:
    """What a checkpoint holds, a file mapped rather than read; no code in it is run.

    Args:
        source: a file, a folder of shards, or a file's content.
        name: of `source`, in messages.

    Raises:
        UserError: it is damaged, or holds more than tensors and plain values.
    """
    if isinstance(source, Path) and source.is_dir():
        return read_whole(source)
    name = name or str(source)
    try:
        with warnings.catch_warnings(action="ignore"):  # the error says more
            loaded = torch.load(
                source, map_location="cpu", weights_only=True, mmap=isinstance(source, Path)
            )
    except pickle.UnpicklingError:
        raise UserError(
            f"{name} holds more than tensors and plain values and is not loaded: it could run a"
            " program"
        ) from None
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise UserError(
            f"{name} is damaged or no checkpoint ({type(error).__name__}); give another"
        ) from None
    if not isinstance(loaded, dict):
        raise UserError(f"{name} is not a checkpoint that fit wrote")
    return loaded


def read_header(path: Path) -> dict[str, Any]:
    """The same without the tensors, where these can be left out."""
    if path.is_dir():
        return read_meta(path) | {"state_dict": {}, "optimizer_states": []}
    return read_checkpoint(path)
