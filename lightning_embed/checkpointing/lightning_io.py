"""How Lightning writes and reads checkpoint files here: whole or not there, and without code."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from lightning_embed.atomic import replacing
from lightning_embed.bar import bar
from lightning_embed.checkpointing.files import read_checkpoint

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
                saving = bar(f"saving {target.name}", tensor_bytes(checkpoint))
                with open(temporary, "wb") as file, saving as advance:
                    torch.save(checkpoint, _Counted(file, advance))  # type: ignore[arg-type]
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


class _Counted:
    """A file that tells how many bytes are written to it."""

    def __init__(self, file: BinaryIO, advance: Callable[[float], None]) -> None:
        self.file, self.advance = file, advance

    def write(self, data: bytes) -> int:
        written = self.file.write(data)
        self.advance(written)
        return written

    def flush(self) -> None:
        self.file.flush()


def tensor_bytes(tree: Any) -> int:
    """Of all tensors in dictionaries, lists and tuples."""
    if isinstance(tree, torch.Tensor):
        return tree.nbytes
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, (list, tuple)):
        return 0
    return sum(map(tensor_bytes, tree))


def is_disk_full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < FULL_BELOW
