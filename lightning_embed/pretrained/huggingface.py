"""A network as a Hugging Face folder has it, in the family of Qwen3 with query-key norms and else
that of Llama: names and config both ways, and the reading of folders.

Neither transformers nor Lightning is needed. Two things differ between the sides. A scaled
embedding is folded into the weights: the matrix is multiplied by sqrt(D), and where the head is the
same matrix the final norm is divided by it. And padding's logit is minus infinity here, but 0
there: an exported folder forbids the id when text is generated (`export.py`), and its loss on text
is higher by what that 0 takes (`held_out.py` measures it).

Shapes: V words, D features.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from lightning_embed.errors import UserError, one_line
from lightning_embed.model.decoder import DecoderLM
from lightning_embed.pretrained.tensors import Entry, open_tensors, read_json
from lightning_embed.pretrained.weights import Pretrained
from lightning_embed.processes import command
from lightning_embed.special_tokens import PAD_ID
from lightning_embed.tokens.tokenizer import PAD_NAMES, TextTokenizer

CONFIG = "config.json"

FAMILIES = {True: ("qwen3", "Qwen3ForCausalLM"), False: ("llama", "LlamaForCausalLM")}  # qk_norm

NAMES = (  # parts of tensors' names, ours and theirs; more in a name are the same
    ("embedding.", "model.embed_tokens."),
    ("blocks.", "model.layers."),
    (".attention_norm.", ".input_layernorm."),
    (".attention.", ".self_attn."),
    (".feed_forward_norm.", ".post_attention_layernorm."),
    (".feed_forward.", ".mlp."),
    ("norm.", "model.norm."),
    ("head.", "lm_head."),
)

SETTINGS = {  # ours, and their name in config.json
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "d_ff": "intermediate_size",
    "norm_eps": "rms_norm_eps",
    "rope_theta": "rope_theta",
    "tied": "tie_word_embeddings",
}
REQUIRED = ("d_model", "n_layers", "n_heads", "d_ff")
OPTIONAL = ("n_kv_heads", "head_dim")  # null is as if left out
LARGEST = 2**20  # of a size: what is larger cannot be, and would take for ever to build
BUFFERS = "rotary_emb.inv_freq"  # older files hold what follows from rope_theta


# Writing -----------------------------------------------------------------------------------------


def config_of(pretrained: Pretrained) -> dict[str, Any]:
    """The content of config.json."""
    network, tokenizer = pretrained.network, pretrained.tokenizer
    layer = next(network.layers())
    model_type, architecture = FAMILIES[pretrained.settings["qk_norm"]]
    sizes = pretrained.settings | {
        "n_kv_heads": layer.attention.k_proj.out_features // network.head_dim,
        "head_dim": network.head_dim,
        "d_ff": layer.feed_forward.gate_proj.out_features,
    }
    family = {"mlp_bias": False}
    if model_type == "qwen3":
        family = {"use_sliding_window": False}
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": tokenizer.vocab_size,
        **{theirs: sizes[ours] for ours, theirs in SETTINGS.items()},
        # transformers 5 reads this, and 4.57 rope_theta, which is 10,000 where it is left out
        "rope_parameters": {"rope_type": "default", "rope_theta": sizes["rope_theta"]},
        "max_position_embeddings": pretrained.max_length,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        **family,
        "initializer_range": 0.02,
        "use_cache": True,
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
        "dtype": "float32",
    }


@torch.no_grad()
def tensors_of(network: DecoderLM) -> dict[str, Tensor]:
    """The network's tensors by their names there, float32, a scaled embedding folded in."""
    own = {name: tensor.detach() for name, tensor in network.state_dict().items()}
    if network.embedding.scale:
        scale = math.sqrt(network.embedding.embedding_dim)
        own["embedding.weight"] = (own["embedding.weight"].double() * scale).float()
        if network.head is None:
            own["norm.weight"] = (own["norm.weight"].double() / scale).float()
    if network.head is not None:  # its padding row is never trained, so it is as initialised
        own["head.weight"] = own["head.weight"].clone()
        own["head.weight"][PAD_ID] = 0.0
    return {theirs_of(name): x.float().cpu().contiguous() for name, x in own.items()}


def theirs_of(name: str) -> str:
    """A tensor's name there."""
    return _translated(name, NAMES)


def ours_of(name: str) -> str:
    """A tensor's name here."""
    return _translated(name, [(theirs, ours) for ours, theirs in NAMES])


def _translated(name: str, table: Iterable[tuple[str, str]]) -> str:
    for before, after in table:
        if before[0] == "." and before in name:
            name = name.replace(before, after)
        elif name.startswith(before):
            name = after + name.removeprefix(before)
    return name


# Reading -----------------------------------------------------------------------------------------


def is_folder(path: Path) -> bool:
    """Whether there is a folder of this kind, of whatever family."""
    return (path / CONFIG).is_file()


def read_folder(path: Path) -> Pretrained:
    """The network and the tokenizer of a folder of the Llama and Qwen3 families. The padding row is
    zeroed; `about` says what norm it had, and how many ids without a token were left out.

    Raises:
        UserError: it is of another kind or family, it computes what `DecoderLM` cannot, tensors are
            missing, left over or of other shapes, or id 1 is not padding.
    """
    config = read_json(path / CONFIG)
    if not config:
        raise UserError(f"{path} has no {CONFIG}: not a Hugging Face folder")
    settings = _settings(config, path)
    max_length = _whole(config, "max_position_embeddings", path, 2048, at_most=2**40)
    tokenizer = _tokenizer(path)
    found = open_tensors(path).entries
    theirs = {ours_of(n): n for n in found if not n.endswith(BUFFERS)}
    _require_layers(path, settings["n_layers"], theirs)
    if settings["tied"] and "embedding.weight" not in theirs and "head.weight" in theirs:
        theirs["embedding.weight"] = theirs.pop("head.weight")  # the same matrix, stored once
    if settings["tied"] and "head.weight" in theirs:
        pair = ("head.weight", "embedding.weight")
        if not torch.equal(*(_numbers(path, theirs[name], found) for name in pair)):
            raise UserError(
                f"{path}: tie_word_embeddings is true, but lm_head.weight is not the embedding;"
                " remove the one that is wrong"
            )
        del theirs["head.weight"]
    network = DecoderLM.outline(tokenizer.vocab_size, settings)
    shapes = {name: tuple(x.shape) for name, x in network.state_dict().items()}
    _require_tensors(path, shapes, {name: found[n].shape for name, n in theirs.items()})
    weights = {
        # Rows beyond the tokenizer's ids were added to round the vocabulary up.
        name: _numbers(path, theirs[name], found)[: shape[0]].clone()
        for name, shape in shapes.items()
    }
    row = weights["embedding.weight"][PAD_ID]
    about = {
        "path": str(path),
        "padding_norm": float(row.norm()),
        "ids_left_out": found[theirs["embedding.weight"]].shape[0] - tokenizer.vocab_size,
    }
    row.zero_()
    if "head.weight" in weights:
        weights["head.weight"][PAD_ID] = 0.0
    network.load_state_dict(weights, assign=True)
    return Pretrained(network.eval(), settings, tokenizer, max_length, about)


def _settings(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """All of `DecoderLM`'s, with the families' defaults for what the config leaves out."""
    families = {model_type: qk_norm for qk_norm, (model_type, _) in FAMILIES.items()}
    family = config.get("model_type")
    if not isinstance(family, str) or family not in families:
        raise UserError(
            f"{path} is of the family {family!r}; taken are {' and '.join(sorted(families))}"
        )
    if problem := _unsupported(config):
        raise UserError(f"{path} has {problem}, which this network does not have")
    missing = [SETTINGS[name] for name in REQUIRED if SETTINGS[name] not in config]
    if missing:
        raise UserError(f"{path / CONFIG} lacks {', '.join(missing)}")
    sizes: dict[str, Any] = {name: _whole(config, SETTINGS[name], path) for name in REQUIRED}
    for name in OPTIONAL:
        if config.get(SETTINGS[name]) is not None:
            sizes[name] = _whole(config, SETTINGS[name], path)
    if family == "qwen3" and "head_dim" not in config:
        sizes["head_dim"] = 128
    width = sizes.get("head_dim") or sizes["d_model"] / sizes["n_heads"]
    if width % 2:
        raise UserError(
            f"{path / CONFIG}: the width of a head is {width:g}, not an even number; it is head_dim"
            " or else hidden_size divided by num_attention_heads"
        )
    if sizes["n_heads"] % sizes.get("n_kv_heads", 1):
        raise UserError(
            f"{path / CONFIG}: num_attention_heads is {sizes['n_heads']}, not a multiple of"
            f" num_key_value_heads, {sizes['n_kv_heads']}"
        )
    tied = config.get(SETTINGS["tied"], False)
    if not isinstance(tied, bool):
        raise UserError(f"{path / CONFIG}: {SETTINGS['tied']} is {tied!r}, not true or false")
    said = [part for part in (config, *_rope(config)) if part.get("rope_theta") is not None]
    thetas = {_positive(part, "rope_theta", path) for part in said}
    if len(thetas) > 1:
        raise UserError(f"{path / CONFIG} has two values of rope_theta, {sorted(thetas)}")
    return DecoderLM.settings(
        **sizes,
        tied=tied,
        qk_norm=families[family],
        norm_eps=_positive(config, SETTINGS["norm_eps"], path, 1e-6),
        rope_theta=next(iter(thetas), 10_000.0),
    )


def _whole(
    config: dict[str, Any],
    name: str,
    path: Path,
    default: int | None = None,
    at_most: int = LARGEST,
) -> int:
    """A size: a whole number of at least 1."""
    value = config.get(name, default)
    if type(value) is not int or not 1 <= value <= at_most:
        raise UserError(
            f"{path / CONFIG}: {name} is {value!r}, not a whole number from 1 to {at_most:,}"
        )
    return value


def _positive(config: dict[str, Any], name: str, path: Path, default: float | None = None) -> float:
    value: Any = config.get(name, default)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < 1e30:  # no NaN, no infinity
        raise UserError(f"{path / CONFIG}: {name} is {value!r}, not a number above 0")
    return float(value)


def _rope(config: dict[str, Any]) -> list[dict[str, Any]]:
    """What is said about rotary positions, in the way of transformers 4 and of 5."""
    parts = (config.get(name) for name in ("rope_scaling", "rope_parameters"))
    return [part for part in parts if isinstance(part, dict)]


def _unsupported(config: dict[str, Any]) -> str | None:
    """What a config asks for that `DecoderLM` does not compute, in a few words."""
    for name in ("rope_scaling", "rope_parameters"):
        if not isinstance(config.get(name), dict | None):
            return f"rope scaling ({name} is {config[name]!r})"
    for rope in _rope(config):
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default" or any(isinstance(value, dict) for value in rope.values()):
            return f"rope scaling ({kind})"
    turned = (part.get("partial_rotary_factor") or 1.0 for part in (config, *_rope(config)))
    if any(factor != 1.0 for factor in turned):
        return "rotary positions in a part of each head"
    if config.get("attention_bias") or config.get("mlp_bias"):
        return "attention biases" if config.get("attention_bias") else "biases in the feed-forward"
    slides = config.get("use_sliding_window", config["model_type"] != "qwen3")
    if slides and config.get("sliding_window"):
        return f"a sliding window ({config['sliding_window']})"
    if "sliding_attention" in str(config.get("layer_types")):
        return "a sliding window in some layers"
    if config.get("hidden_act", "silu") != "silu":
        return f"the activation {config['hidden_act']!r}"
    return "quantized weights" if config.get("quantization_config") else None


def _tokenizer(path: Path) -> TextTokenizer:
    """The folder's, in which id 1 must be padding."""
    file = path / "tokenizer.json"
    if not file.is_file():
        raise UserError(f"{path} has no tokenizer.json: its weights mean nothing without their ids")
    data = read_json(file)
    data["post_processor"] = None  # no part of encoding a text here, but of the fingerprint
    text = json.dumps(data, ensure_ascii=False)
    try:
        word = Tokenizer.from_str(text).id_to_token(PAD_ID)
    except Exception as error:  # the library raises bare Exceptions
        raise UserError(f"{file} is not a usable tokenizer.json: {one_line(error)}") from None
    if word is not None and word not in PAD_NAMES:
        raise UserError(
            f"{path}: id {PAD_ID} is {word!r}, but padding here, so that its weights"
            f" cannot be taken{_way_out(path)}"
        )
    return TextTokenizer.from_json(text, str(file))


def _way_out(path: Path) -> str:
    """Where its tokenizer at least can be had."""
    try:
        TextTokenizer.adopt(str(path))
    except UserError:
        return ""
    adopt = command("tokenizer", "--adopt", path)
    return f"; its tokenizer can, for a new model: {adopt}, then --data.tokenizer tokenizer.json"


def _require_layers(path: Path, wanted: int, names: Iterable[str]) -> None:
    """Raises UserError unless there are so many; before a network of a billion is built."""
    layers = {name.split(".")[1] for name in names if name.startswith("blocks.")}
    if len(layers) != wanted:
        raise UserError(
            f"{path / CONFIG}: {SETTINGS['n_layers']} is {wanted}, but its weights are of"
            f" {len(layers)}"
        )


def _numbers(path: Path, name: str, found: dict[str, Entry]) -> Tensor:
    """A tensor in float32.

    Raises:
        UserError: it is of other than real numbers, or some are not finite.
    """
    tensor = found[name].read()
    if not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise UserError(f"{path}: {name} is of the type {kind}, not of floating-point numbers")
    tensor = tensor.to(torch.float32)
    if not tensor.isfinite().all():
        raise UserError(f"{path}: {name} holds NaN or infinity: its training failed, or the file")
    return tensor


def _require_tensors(
    path: Path, wanted: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]
) -> None:
    """Raises UserError unless there are exactly those; embedding and head may have more rows."""
    if "head.weight" in wanted and "head.weight" not in found:
        raise UserError(
            f"{path}: tie_word_embeddings is false, but there is no lm_head.weight: set it to true"
            " if the embedding is the head; transformers would draw a random one"
        )
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            raise UserError(f"{path} lacks the tensor {theirs_of(name)}")
        if name not in wanted:
            raise UserError(f"{path} has a tensor {theirs_of(name)} more than this network")
        # compared without the rows that are more
        rows = found[name][:1] > wanted[name][:1] and name in ("embedding.weight", "head.weight")
        shape = wanted[name][:1] + found[name][1:] if rows else found[name]
        if shape != wanted[name]:
            raise UserError(
                f"{path}: {theirs_of(name)} has the shape {found[name]}, not {wanted[name]} as its"
                " config and tokenizer say"
            )
