"""Opens a trained network, wherever it comes from."""

import os
from pathlib import Path

from lightning_embed.checkpointing.run_folders import ROOT
from lightning_embed.pretrained.checkpoint import read_trained
from lightning_embed.pretrained.huggingface import is_folder, read_folder
from lightning_embed.pretrained.weights import Pretrained


def open_pretrained(path: str | os.PathLike[str], root: Path = ROOT) -> Pretrained:
    """The network of a Hugging Face folder, or what `read_trained` takes: a run's folder, a
    .ckpt, a folder of shards, or `best` or `last` of the latest run in `root`.

    Raises:
        UserError: it cannot be used; see `read_folder` and `read_trained`.
    """
    folder = Path(path)
    return read_folder(folder) if is_folder(folder) else read_trained(os.fspath(path), root)
