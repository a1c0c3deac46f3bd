"""Writes a trained network for other programs: a folder or a file that is whole or not there.

The file is that of `gguf.py`; the folder has

config.json  generation_config.json  model.safetensors   the network, see `huggingface.py`
tokenizer.json  tokenizer_config.json                    its tokenizer
README.md                                                the model card, see `model_card.py`
"""

import json
import os
from pathlib import Path
from typing import Any, Literal, get_args

from tokenizers import Tokenizer, processors

from lightning_embed.atomic import parents_of, put_in_place, sweep_orphans, work_folder
from lightning_embed.errors import UserError, writing
from lightning_embed.pretrained.gguf import Dtype, import_gguf, write_gguf
from lightning_embed.pretrained.held_out import HeldOut
from lightning_embed.pretrained.huggingface import CONFIG, config_of, tensors_of
from lightning_embed.pretrained.model_card import model_card
from lightning_embed.pretrained.weights import Pretrained
from lightning_embed.tokens.tokenizer import TextTokenizer

Format = Literal["huggingface", "gguf"]

WEIGHTS = "model.safetensors"
FILES = (
    *(CONFIG, "generation_config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json"),
    "README.md",
)


def export(
    pretrained: Pretrained,
    output: str | os.PathLike[str],
    *,
    format: Format = "huggingface",
    dtype: Dtype = "F32",
    overwrite: bool = False,
    evaluation: HeldOut | None = None,
) -> Path:
    """Write the folder or file `output`; until all of it is written, nothing is there.

    Args:
        pretrained: the network.
        output: the folder or file, which must not exist.
        format: "huggingface", a folder that transformers 4.57 and later load without code of this
            project; "gguf", a file for llama.cpp.
        dtype: of a GGUF file's matrices.
        overwrite: replace an older export.
        evaluation: what the model card says about its quality.

    Returns:
        `output`.

    Raises:
        UserError: there is something at `output`, it cannot be written, or the format cannot hold
            this network.
    """
    target = Path(output)
    require_possible(target, format, dtype, overwrite)
    whole = target.absolute()
    with writing(target, "--output"), parents_of(whole), work_folder(whole) as work:
        sweep_orphans(whole.parent)
        if format == "gguf":
            work /= whole.name
            write_gguf(pretrained, work, dtype)
        else:
            _write(pretrained, work, evaluation)
        put_in_place(work, whole)
    return target


def require_possible(target: Path, format: Format, dtype: Dtype, overwrite: bool) -> None:
    """Refuse an export that cannot be, whatever the network.

    Raises:
        UserError: there is no such format or type, a package is missing, or something at `target`
            would be lost: only an older export is replaced, and only if `overwrite` is set; or
            nothing can be written there.
    """
    if format not in get_args(Format):
        raise UserError(f"--format is {format!r}; choose {' or '.join(get_args(Format))}")
    if dtype not in get_args(Dtype):
        raise UserError(f"--dtype is {dtype!r}; choose {', '.join(get_args(Dtype))}")
    if format == "gguf":
        import_gguf()
    elif target.suffix == ".gguf":
        raise UserError(f"--output {target} would be a folder: give --format gguf for such a file")
    elif dtype != "F32":
        raise UserError(f"--dtype {dtype} is for --format gguf; {format} is F32")
    require_free = _require_free_file if format == "gguf" else _require_free_folder
    with writing(target, "--output"):
        require_free(target, overwrite)
        whole = target.absolute()
        with parents_of(whole), work_folder(whole):  # by trying
            pass


def _require_free_folder(target: Path, overwrite: bool) -> None:
    if target.is_dir() and not any(target.iterdir()):
        return
    if not target.exists() and not target.is_symlink():
        return
    if not overwrite:
        raise UserError(f"{target} exists already: give another --output, or --overwrite")
    if not target.is_dir() or target.is_symlink():
        raise UserError(f"{target} is no folder: give another --output")
    others = sorted(file.name for file in target.iterdir() if file.name not in FILES)
    if others:
        raise UserError(
            f"{target} holds {others[0]}, which no export wrote: it is not replaced, give another"
            " --output"
        )


def _require_free_file(target: Path, overwrite: bool) -> None:
    if not target.exists() and not target.is_symlink():
        return
    if target.is_dir():
        raise UserError(f"{target} is a folder: give a file with --output, such as model.gguf")
    if not overwrite:
        raise UserError(f"{target} exists already: give another --output, or --overwrite")
    with open(target, "rb") as file:
        if file.read(4) != b"GGUF":
            raise UserError(f"{target} is no GGUF file: it is not replaced, give another --output")


def _write(pretrained: Pretrained, folder: Path, evaluation: HeldOut | None) -> None:
    from safetensors.torch import save

    texts = {
        CONFIG: _json(config_of(pretrained)),
        "generation_config.json": _json(generation_config(pretrained.tokenizer)),
        "tokenizer.json": tokenizer_json(pretrained.tokenizer),
        "tokenizer_config.json": _json(tokenizer_config(pretrained)),
        "README.md": model_card(pretrained, evaluation),
    }
    for name, text in texts.items():
        _put(folder / name, text.encode())
    # Written here, because safetensors' own function makes a file that nobody else may read.
    _put(folder / WEIGHTS, save(tensors_of(pretrained.network), {"format": "pt"}))


def tokenizer_json(tokenizer: TextTokenizer) -> str:
    """The content of tokenizer.json: as ours, and each text begins with <s>."""
    theirs = Tokenizer.from_str(tokenizer.to_json())
    bos = theirs.id_to_token(tokenizer.bos_id)
    theirs.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B:1", special_tokens=[(bos, tokenizer.bos_id)]
    )
    text: str = theirs.to_str(pretty=True)
    return text


def tokenizer_config(pretrained: Pretrained) -> dict[str, Any]:
    """The content of tokenizer_config.json."""
    tokenizer = pretrained.tokenizer
    names = Tokenizer.from_str(tokenizer.to_json()).id_to_token
    ids = {
        "bos_token": tokenizer.bos_id,
        "eos_token": tokenizer.eos_id,
        "pad_token": tokenizer.pad_id,
        "unk_token": tokenizer.unk_id,
    }
    return {
        # Left out, transformers 5 makes a tokenizer of Qwen2's out of the family, with other ids.
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{name: names(i) for name, i in ids.items() if i is not None},
        "split_special_tokens": True,  # else the text "<pad>" would become id 1
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": pretrained.max_length,
        "padding_side": "left",
    }


def generation_config(tokenizer: TextTokenizer) -> dict[str, Any]:
    """The content of generation_config.json: padding, whose logit is 0 there, is never drawn."""
    return {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
        "suppress_tokens": [tokenizer.pad_id],
    }


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _put(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
