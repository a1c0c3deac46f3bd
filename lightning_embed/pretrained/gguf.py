"""A network as a GGUF file, for llama.cpp and what is built on it; `gguf`, the package of that
project, writes it.

The names of tensors and the folded embedding are those of a Hugging Face folder, translated. What
is different: the family Llama turns neighbouring channels by their positions, so the rows of
queries and keys are put in that order; sizes are metadata, with the tokenizer; and matrices may be
of 16 or 8 bits. Padding's logit is 0 there, so the file says that the id is not to be drawn.
"""

import json
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightning_embed.errors import UserError
from lightning_embed.pretrained.huggingface import config_of, tensors_of
from lightning_embed.pretrained.llama_cpp_tokens import llama_cpp_name
from lightning_embed.pretrained.weights import Pretrained
from lightning_embed.processes import install_command

Dtype = Literal["F32", "F16", "Q8_0"]

BLOCK = 32  # numbers that share a scale in Q8_0

NAMES = {  # parts of tensors' names in a Hugging Face folder and here
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers": "blk",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(pretrained: Pretrained, output: Path, dtype: Dtype) -> None:
    """Write the file `output`; `export` puts it in its place when it is whole.

    Args:
        pretrained: the network.
        output: the file.
        dtype: of the matrices; vectors are always float32.

    Raises:
        UserError: the package is not installed, or llama.cpp has no tokenizer with these ids.
    """
    gguf = import_gguf()
    pre_tokenizer = llama_cpp_name(pretrained)
    family = config_of(pretrained)["model_type"]
    with closing(gguf.GGUFWriter(output, family)) as writer:
        _add_sizes(writer, pretrained, output.stem)
        writer.add_file_type(gguf.LlamaFileType[_file_type(dtype)])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        _add_tokenizer(writer, pretrained, pre_tokenizer)
        for name, tensor in tensors_of(pretrained.network).items():
            numbers, kind = _stored(gguf, _turned(name, tensor, pretrained), dtype)
            writer.add_tensor(_name_of(name), numbers, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()


def import_gguf() -> Any:
    """The package.

    Raises:
        UserError: it is not installed.
    """
    try:
        import gguf
    except ImportError:
        raise UserError(f"--format gguf needs gguf: {install_command('gguf')}") from None
    return gguf


def _add_sizes(writer: Any, pretrained: Pretrained, name: str) -> None:
    config = config_of(pretrained)
    writer.add_name(name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(float(config["rope_theta"]))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def _add_tokenizer(writer: Any, pretrained: Pretrained, pre_tokenizer: str) -> None:
    tokenizer = pretrained.tokenizer
    data = json.loads(tokenizer.to_json())
    tokens, kinds = _vocabulary(data, tokenizer.vocab_size, tokenizer.unk_id)
    merges = (pair if isinstance(pair, str) else " ".join(pair) for pair in data["model"]["merges"])
    writer.add_tokenizer_model("gpt2")  # any byte-level BPE
    writer.add_tokenizer_pre(pre_tokenizer)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(list(merges))
    writer.add_bos_token_id(tokenizer.bos_id)
    writer.add_eos_token_id(tokenizer.eos_id)
    writer.add_pad_token_id(tokenizer.pad_id)
    if tokenizer.unk_id is not None:
        writer.add_unk_token_id(tokenizer.unk_id)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_array("tokenizer.ggml.suppress_tokens", [tokenizer.pad_id])


def _vocabulary(data: dict[str, Any], size: int, unk_id: int | None) -> tuple[list[str], list[int]]:
    """Each id's token and kind."""
    from gguf import TokenType

    tokens = [f"[UNUSED{i}]" for i in range(size)]
    kinds = [TokenType.UNUSED] * size
    for token, i in data["model"]["vocab"].items():
        tokens[i], kinds[i] = token, TokenType.NORMAL
    for token in data["added_tokens"]:
        kind = TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
        tokens[token["id"]], kinds[token["id"]] = token["content"], kind
    if unk_id is not None:
        kinds[unk_id] = TokenType.UNKNOWN
    return tokens, [int(kind) for kind in kinds]


def _name_of(name: str) -> str:
    """Of a tensor of a Hugging Face folder."""
    for theirs, here in NAMES.items():
        name = name.replace(theirs, here) if f".{theirs}." in f".{name}" else name
    return name


def _turned(name: str, tensor: Tensor, pretrained: Pretrained) -> Tensor:
    """In the family Llama the rows of a head's queries and keys, whose pairs are c and c + C/2,
    with pairs side by side."""
    if pretrained.settings["qk_norm"] or not name.endswith(("q_proj.weight", "k_proj.weight")):
        return tensor
    half = pretrained.network.head_dim // 2
    heads = tensor.shape[0] // (2 * half)
    return tensor.view(heads, 2, half, -1).transpose(1, 2).reshape(tensor.shape)


def _stored(gguf: Any, tensor: Tensor, dtype: Dtype) -> tuple[NDArray[Any], Any]:
    """The numbers as they are written, and their type."""
    numbers = tensor.numpy()
    if tensor.ndim == 1 or dtype == "F32":
        return numbers, gguf.GGMLQuantizationType.F32
    if dtype == "Q8_0" and tensor.shape[1] % BLOCK == 0:
        kind = gguf.GGMLQuantizationType.Q8_0
        return gguf.quants.quantize(numbers, kind), kind
    return numbers.astype(np.float16), gguf.GGMLQuantizationType.F16


def _file_type(dtype: Dtype) -> str:
    return "ALL_F32" if dtype == "F32" else f"MOSTLY_{dtype}"
