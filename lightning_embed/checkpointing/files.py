"""Checkpoints told from damaged ones and read without running code, files and folders of shards.

`shards.py` reads the folders; it is imported once there is one, because it takes a second.
"""

import pickle
import warnings
import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import torch

from lightning_embed.errors import UserError


def is_whole(path: Path | BinaryIO) -> bool:
    """Whether a checkpoint is complete and every checksum in it holds.

    torch.load would load flipped bits without a word.
    """
    if isinstance(path, Path) and path.is_dir():
        from lightning_embed.checkpointing.shards import is_whole_folder

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
        from lightning_embed.checkpointing.shards import read_whole

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
        from lightning_embed.checkpointing.shards import read_meta

        return read_meta(path) | {"state_dict": {}, "optimizer_states": []}
    return read_checkpoint(path)
