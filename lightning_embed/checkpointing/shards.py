"""Checkpoints in shards: a folder to which every process wrote its part, whole or not there.

    x.ckpt/  __0_0.distcp  __1_0.distcp ...  .metadata   written by torch.distributed.checkpoint
             meta.pt       all that is no tensor of the model or of the optimizer
             whole.json    size and CRC-32 of each file, written last

torch reads `.metadata` with pickle and small values with `weights_only=False`; both could run a
program, so both are replaced here.
"""

import io
import json
import os
import pickle
import zlib
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import ReadItem

from lightning_embed.errors import UserError
from lightning_embed.library_internals import SHARDS_GLOBALS, read_every_value

META, MARK = "meta.pt", "whole.json"
OPTIMIZER = "optimizer_"  # Lightning's key for the state of optimizer 0, 1, ...
PLAIN_GLOBALS = {
    ("torch", "Size"),
    ("torch", "device"),
    *SHARDS_GLOBALS,
    ("collections", "OrderedDict"),
    ("pathlib", "PosixPath"),
}


def is_sharded(path: Path) -> bool:
    return path.is_dir() and (path / ".metadata").is_file()


# Writing -----------------------------------------------------------------------------------------


def save_sharded(checkpoint: dict[str, Any], folder: Path, is_first: bool) -> None:
    """Write this process' part of `checkpoint` into `folder`; every process must call it.

    The folder must be new. It counts as whole once the first process has written the mark.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"state_dict": checkpoint["state_dict"]}
    for number, state in enumerate(checkpoint.get("optimizer_states", [])):
        tensors[f"{OPTIMIZER}{number}"] = state
    dcp.save(tensors, checkpoint_id=folder)
    dist.barrier()
    if is_first:
        rest = {k: v for k, v in checkpoint.items() if k not in ("state_dict", "optimizer_states")}
        with open(folder / META, "wb") as file:
            torch.save(rest, file)
        mark_whole(folder)


def mark_whole(folder: Path) -> None:
    """Sync every file to the disk, then write their sizes and checksums."""
    sums = {}
    for file in sorted(folder.iterdir()):
        if file.name != MARK:
            with open(file, "rb") as opened:
                sums[file.name] = _size_and_sum(opened)
                os.fsync(opened.fileno())
    with open(folder / MARK, "w", encoding="utf-8") as opened:
        json.dump(sums, opened)
        opened.flush()
        os.fsync(opened.fileno())


def _size_and_sum(opened: Any) -> list[int]:
    size = total = 0
    while piece := opened.read(2**24):
        size += len(piece)
        total = zlib.crc32(piece, total)
    return [size, total]


def is_whole_folder(folder: Path) -> bool:
    """Whether the mark is there and every file's size and checksum are as it says."""
    try:
        sums = json.loads((folder / MARK).read_text(encoding="utf-8"))
        present = {file.name for file in folder.iterdir()} - {MARK}
        if not isinstance(sums, dict) or present != set(sums) or ".metadata" not in present:
            return False
        for name, expected in sums.items():
            with open(folder / name, "rb") as opened:
                if _size_and_sum(opened) != expected:
                    return False
    except (OSError, ValueError):
        return False
    return True


# Reading -----------------------------------------------------------------------------------------


class _PlainUnpickler(pickle.Unpickler):
    """Finds what torch's metadata is made of, and nothing that could run a program."""

    def find_class(self, module: str, name: str) -> Any:
        from_metadata = module == "torch.distributed.checkpoint.metadata"
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if from_metadata and isinstance(found := super().find_class(module, name), type):
            return found
        if is_dtype or (module, name) in PLAIN_GLOBALS:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name}")


class _PlainReader(dcp.FileSystemReader):
    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with open(Path(self.path) / ".metadata", "rb") as file:
            metadata = _PlainUnpickler(file).load()
        if not isinstance(metadata, Metadata):
            raise pickle.UnpicklingError(type(metadata).__name__)
        return metadata


def _opened(folder: Path) -> _PlainReader:
    """A reader of metadata known to be plain; torch would log a traceback before it failed."""
    reader = _PlainReader(folder)
    reader.read_metadata()
    return reader


def _load_plainly(planner: Any, item: ReadItem, value: io.BytesIO) -> None:
    """Let torch's own planner place a value, once it is known to be a plain one."""
    torch.load(value, weights_only=True)
    value.seek(0)
    DefaultLoadPlanner.load_bytes(planner, item, value)


class _PlainPlanner(DefaultLoadPlanner):
    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        _load_plainly(self, read_item, value)


def load_into(state: dict[str, Any], folder: Path) -> None:
    """Fill a sharded state dict in place, whatever number of processes wrote the folder; every
    process must call it.

    Raises:
        UserError: the folder holds more than tensors and plain values.
    """
    try:
        reader = _opened(folder)
        dcp.load(state, storage_reader=reader, planner=_PlainPlanner())
    except (pickle.UnpicklingError, dcp.CheckpointException) as error:
        raise _refusal(folder, error) from None


def read_meta(folder: Path) -> dict[str, Any]:
    """What a folder holds beside tensors: settings, position, tokenizer."""
    try:
        meta = torch.load(folder / META, map_location="cpu", weights_only=True)
    except (OSError, pickle.UnpicklingError, RuntimeError) as error:
        raise _refusal(folder, error) from None
    if not isinstance(meta, dict):
        raise UserError(f"{folder} is not a checkpoint that fit wrote")
    return meta


def read_whole(folder: Path) -> dict[str, Any]:
    """A folder as the dict a single file would hold, put together in this process' memory."""
    try:
        whole = read_every_value(_opened(folder), _load_plainly)
    except (pickle.UnpicklingError, dcp.CheckpointException) as error:
        raise _refusal(folder, error) from None
    states = sorted(key for key in whole if key.startswith(OPTIMIZER))
    return {
        **read_meta(folder),
        "state_dict": whole["state_dict"],
        "optimizer_states": [whole[key] for key in states],
    }


def _refusal(folder: Path, error: BaseException) -> UserError:
    return UserError(
        f"{folder} cannot be read, or holds more than tensors and plain values and could run a"
        f" program ({type(error).__name__}); give another checkpoint"
    )
