"""Tensors out of somebody else's files, without running any code in them.

Read are safetensors, what `torch.save` writes (zip and the older form) and shards with their index;
what is truncated, foreign or would run code is refused in one line.

A pickle is a program: loading one can call any function. Here every `torch.load` says
`weights_only=True` itself, which the environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD cannot
turn off. Files are mapped into memory, so only what is looked at is read.
"""

import re
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from json import loads
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_embed.errors import UserError
from lightning_embed.processes import command

WEIGHTS = (  # in the order in which transformers takes them
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
WRAPPERS = ("state_dict", "model_state_dict", "model")  # where checkpoints keep the state dict
GIT_LFS = b"version https://git-lfs"
BLOCKED = re.compile(r"GLOBAL (\S+)")


class Entry(NamedTuple):
    """A tensor's shape, known at once, and how to read it."""

    shape: tuple[int, ...]
    read: Callable[[], Tensor]


@dataclass
class Tensors:
    """Named tensors of a model, and whatever else a checkpoint holds."""

    kind: str
    entries: dict[str, Entry]
    checkpoint: dict[str, Any] = field(default_factory=dict)

    def matrices(self, rows: int | None = None) -> list[str]:
        """Names of the two-dimensional tensors, or of those with so many rows."""
        return [
            name
            for name, entry in self.entries.items()
            if len(entry.shape) == 2 and rows in (None, entry.shape[0])
        ]


def open_tensors(path: Path) -> Tensors:
    """The tensors of a Hugging Face folder, a checkpoint or a file of weights.

    Raises:
        UserError: nothing is there, or it is truncated, another kind of file, or would run code.
    """
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise UserError(f"no file or folder at {path}")
    if path.name.endswith(".index.json"):
        return Tensors("sharded weights", _open_shards(path))
    return _open_file(path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; an absent file is an empty one."""
    if not path.is_file():
        return {}
    try:
        loaded = loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also bytes that are not UTF-8
        raise UserError(f"{path} does not parse as JSON ({error})") from None
    if not isinstance(loaded, dict):
        raise UserError(f"{path} is not a JSON object")
    return loaded


def _open_folder(folder: Path) -> Tensors:
    if (folder / ".metadata").is_file():
        join = command("consolidate", "--checkpoint", folder, "--output", "whole.ckpt")
        raise UserError(
            f"{folder} is a sharded checkpoint, whose index is a pickle: {join} puts it together"
            " without running that (Lightning's consolidate_checkpoint runs it); audit the file"
        )
    name = next((name for name in WEIGHTS if (folder / name).is_file()), None)
    if name is None:
        raise UserError(f"{folder} holds no weights; looked for {', '.join(WEIGHTS)}")
    kind = f"Hugging Face folder, {name}"
    if name.endswith(".index.json"):
        return Tensors(kind, _open_shards(folder / name))
    opened = _open_file(folder / name)
    opened.kind = kind
    return opened


def _open_shards(index: Path) -> dict[str, Entry]:
    """Every tensor an index promises, from the files beside it."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index} has no weight_map")
    shards = list(dict.fromkeys(map(str, weight_map.values())))
    opened = {}
    for shard in shards:
        if Path(shard).name != shard:  # an index must not make us open files elsewhere
            raise UserError(f"{index} names {shard!r}, which is not a file beside it")
        if not (index.parent / shard).is_file():
            raise UserError(f"{index} names {shard}, which is missing")
        opened[shard] = _open_file(index.parent / shard).entries
    for name, shard in weight_map.items():
        if name not in opened[str(shard)]:
            raise UserError(f"{index} promises {name!r} in {shard}, which lacks it")
    return {name: opened[str(shard)][name] for name, shard in weight_map.items()}


def _open_file(path: Path) -> Tensors:
    with open(path, "rb") as file:
        start = file.read(len(GIT_LFS))
    if not start:
        raise UserError(f"{path} is empty")
    if start == GIT_LFS:
        raise UserError(f"{path} is a Git LFS pointer, not the weights; run git lfs pull")
    # Eight bytes of length, then a header in JSON; nothing torch.save writes looks like that.
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return Tensors("safetensors file", _open_safetensors(path))
    return _open_pickle(path)


def _open_safetensors(path: Path) -> dict[str, Entry]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {
                name: Entry(
                    tuple(file.get_slice(name).get_shape()), partial(_read_safetensor, path, name)
                )
                for name in file.keys()  # noqa: SIM118 - not a dict
            }
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a whole safetensors file ({error})") from None


def _read_safetensor(path: Path, name: str) -> Tensor:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
            return tensor
    except (SafetensorError, OSError, RuntimeError, AttributeError) as error:
        raise UserError(f"{name!r} in {path} cannot be read ({error})") from None


def _open_pickle(path: Path) -> Tensors:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice for the file's author
            loaded = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except Exception as error:  # a file made by others can fail in any way there is
        raise UserError(_why_refused(path, error)) from None
    if isinstance(loaded, Tensor):
        loaded = {"weight": loaded}
    if not isinstance(loaded, dict):
        raise UserError(f"{path} holds a {type(loaded).__name__}, not named tensors")
    wrapper = next((name for name in WRAPPERS if isinstance(loaded.get(name), dict)), None)
    entries = {
        name: Entry(tuple(tensor.shape), partial(_same, tensor))
        for name, tensor in (loaded[wrapper] if wrapper else loaded).items()
        if isinstance(name, str) and is_plain(tensor)
    }
    if not entries:
        raise UserError(f"{path} holds no tensors: it is no state dict and no checkpoint")
    if wrapper is None:
        return Tensors("state dict", entries)
    lightning = "pytorch-lightning_version" in loaded
    kind = "Lightning checkpoint" if lightning else f"checkpoint ({wrapper!r})"
    return Tensors(kind, entries, {k: v for k, v in loaded.items() if k != wrapper})


def _why_refused(path: Path, error: Exception) -> str:
    text = str(error)
    if found := BLOCKED.search(text):
        return (
            f"{path} asks for {found[1].rstrip('.')}, which is code and not weights; nothing of it "
            "was run"
        )
    reason = next((line for line in text.splitlines() if line.strip()), "") or type(error).__name__
    return f"{path} is truncated, damaged or not a file of weights ({reason[:160]})"


def _same(tensor: Tensor) -> Tensor:
    return tensor


def is_plain(value: Any) -> bool:
    """Whether it is a tensor whose numbers are all there: not sparse, quantised, on `meta`, or one
    number said to be a billion, which a file made to harm may hold."""
    return (
        type(value) in (Tensor, nn.Parameter)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and value.untyped_storage().nbytes() >= value.numel() * value.element_size()
    )
