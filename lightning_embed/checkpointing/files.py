"""Checkpoints that are whole or not there, and that run no code.

Knows: writing beside the target and renaming, telling a whole one from a damaged one, reading one.
Leaves to others: when to save (`callbacks/checkpointing.py`), what a checkpoint holds
(`lightning_module.py`, `datamodule.py`), where it lies (`runs.py`), shards (`sharded.py`).
"""

import errno
import os
import pickle
import shutil
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor

from lightning_embed.checkpointing.shards import is_whole_folder, read_meta, read_whole
from lightning_embed.errors import UserError

TEMPORARY = ".tmp-"
FULL_BELOW = 2**20  # bytes left on a disk that torch could not write on


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
            if target.is_dir():  # shards, from a run that went on in another way
                shutil.rmtree(target)
            os.replace(name, target)
        except BaseException as error:
            full = is_disk_full(target.parent)
            name.unlink(missing_ok=True)
            if isinstance(error, RuntimeError) and full:  # torch's word for a full disk
                raise OSError(errno.ENOSPC, f"disk full; {target} is not written") from None
            raise
        sync_folder(target.parent)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """A file or a folder of shards; never anything but tensors and plain values."""
        return read_checkpoint(Path(path))


def is_disk_full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < FULL_BELOW


def sweep(folder: Path) -> None:
    """Remove what a killed process left half written."""
    for left in folder.glob(f".*{TEMPORARY}*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` last through a power cut, where the platform can."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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


def require_whole(path: Path, content: BinaryIO | None = None) -> None:
    """Raises UserError: the checkpoint is damaged. `content` is the file's, where it was read."""
    if not is_whole(path if content is None else content):
        raise UserError(
            f"{path} is damaged (not a whole archive, or its checksums do not hold); give another,"
            " or --ckpt_path last for the newest whole one"
        )


def verified(place: Any) -> Any:
    """A path, a folder of shards, a URL or an open file, as something that Lightning loads and
    whose checksums hold."""
    if not isinstance(place, str | Path):
        require_whole(Path("the checkpoint"), place)
        place.seek(0)
        return place
    path = Path(place)
    if path.is_file():
        require_whole(path)
        return place
    content = BytesIO()
    if path.is_dir():
        require_whole(path)
        torch.save(read_checkpoint(path), content)
    else:
        with fsspec.open(str(place), "rb") as file:
            shutil.copyfileobj(file, content)
        require_whole(path, content)
    content.seek(0)
    return content


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds, a file mapped rather than read; no code in it is run.

    Raises:
        UserError: it holds more than tensors and plain values, or is no checkpoint of ours.
    """
    if path.is_dir():
        return _require_ours(read_whole(path), path)
    try:
        with warnings.catch_warnings(action="ignore"):  # the error says more
            saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} holds more than tensors and plain values and is not loaded: it could run a"
            " program"
        ) from None
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise UserError(
            f"{path} is damaged or no checkpoint ({type(error).__name__}); give another"
        ) from None
    return _require_ours(saved, path)


def read_header(path: Path) -> dict[str, Any]:
    """The same without the tensors, where these can be left out."""
    if path.is_dir():
        return _require_ours(read_meta(path) | {"state_dict": {}, "optimizer_states": []}, path)
    return read_checkpoint(path)


def require_fits(
    checkpoint: dict[str, Any],
    own: Mapping[str, Tensor],
    groups: Mapping[str, Sequence[Tensor]] | None,
) -> None:
    """Refuse weights or moments of other shapes before any of them is copied.

    Args:
        checkpoint: what was read; a part that is not in it is not looked at.
        own: the model's state dict.
        groups: the parameters of each of the optimizer's groups, in order; None where only the
            weights are of use.
    """
    saved = checkpoint.get("state_dict") or own
    differ = [
        name
        for name in sorted(own.keys() | saved.keys())
        if getattr(own.get(name), "shape", None) != getattr(saved.get(name), "shape", ())
    ]
    if groups is not None and "optimizer_states" in checkpoint:
        try:
            differ += _unfit_moments(checkpoint["optimizer_states"], groups)
        except (KeyError, TypeError, AttributeError, ValueError):
            differ.append("the optimizer's state")
    if differ:
        raise UserError(
            f"the checkpoint does not fit this model: {', '.join(differ[:3])}"
            f"{' and more' if len(differ) > 3 else ''} have other shapes or are on one side only;"
            " give the --model.* settings it was trained with"
        )


def _unfit_moments(
    states: list[dict[str, Any]], groups: Mapping[str, Sequence[Tensor]]
) -> Iterator[str]:
    (state,) = states
    saved = {group["name"]: group["params"] for group in state["param_groups"]}
    for name in saved.keys() | groups.keys():
        keys, parameters = saved.get(name, ()), groups.get(name, ())
        if len(keys) != len(parameters):
            yield f"optimizer group {name}"
        for key, parameter in zip(keys, parameters, strict=False):
            moments = state["state"].get(key, {})
            if not moments or any(m.ndim and m.shape != parameter.shape for m in moments.values()):
                yield f"a moment in group {name}"


def _require_ours(saved: Any, path: Path) -> dict[str, Any]:
    parts = {"state_dict": dict, "hyper_parameters": dict, "pytorch-lightning_version": str}
    numbers = {"global_step": int, "epoch": int}  # not every model that was saved was trained
    if (
        not isinstance(saved, dict)
        or any(not isinstance(saved.get(name), kind) for name, kind in parts.items())
        or any(not isinstance(saved.get(name, 0), kind) for name, kind in numbers.items())
    ):
        raise UserError(f"{path} is not a checkpoint that fit wrote")
    return saved
