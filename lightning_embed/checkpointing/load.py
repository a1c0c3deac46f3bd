"""Opening a checkpoint for its weights, whatever it is given as, after the gate's first checks."""

import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import fsspec
import torch

from lightning_embed.checkpointing.compatibility import Candidate, check, damage
from lightning_embed.checkpointing.files import is_whole, read_checkpoint
from lightning_embed.checkpointing.run_folders import find_checkpoint


def opened(place: Any) -> Any:
    """A checkpoint, a run's folder, `best`, `last`, a URL or an open file, as something Lightning
    loads weights from.

    Raises:
        UserError: it is damaged, holds code, or is not a checkpoint of ours.
    """
    is_path = isinstance(place, str | Path)
    is_local = is_path and "://" not in str(place)
    if is_local:
        place = find_checkpoint(str(place), "evaluate")
    candidate = Candidate(Path(place if is_path else "the checkpoint"), "evaluate")
    if is_local:
        check(candidate, "file")
    content = None
    if not candidate.path.is_file():
        content = _fetched(place)
        candidate.checkpoint = read_checkpoint(content, str(candidate.path))
        content.seek(0)
    check(candidate, "content")
    return place if content is None else content


def _fetched(place: Any) -> BytesIO:
    """A checkpoint that is no local file, in memory: shards put together, a URL, an open file.

    Raises:
        UserError: it is not whole.
    """
    content = BytesIO()
    if isinstance(place, str | Path) and Path(place).is_dir():
        torch.save(read_checkpoint(Path(place)), content)
        content.seek(0)
        return content
    if isinstance(place, str | Path):
        with fsspec.open(str(place), "rb") as file:
            shutil.copyfileobj(file, content)
    else:
        shutil.copyfileobj(place, content)
    if not is_whole(content):
        raise damage(Path(str(place) if isinstance(place, str | Path) else "the checkpoint"))
    content.seek(0)
    return content
