"""The GGUF file: its fields and tensors, read with the package gguf; `test_llama_cpp.py` has
llama.cpp itself compute with it."""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported_shapes import SHAPES, bpe, pretrained
from workshop import run

from lightning_embed.errors import UserError
from lightning_embed.inference.text_model import TextModel
from lightning_embed.model.decoder import DecoderLM
from lightning_embed.pretrained import gguf as module
from lightning_embed.pretrained import llama_cpp_tokens
from lightning_embed.pretrained.export import export
from lightning_embed.pretrained.huggingface import tensors_of
from lightning_embed.pretrained.weights import Pretrained

Build = Callable[..., DecoderLM]

LAYER = {
    *("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output"),
    *("ffn_norm", "ffn_gate", "ffn_up", "ffn_down"),
}


@pytest.fixture(autouse=True)
def few_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_cpp_tokens, "TEXTS", 5)


@pytest.fixture
def gguf() -> Any:
    return pytest.importorskip("gguf")


def given(tiny_lm: Build, shape: str = "tied") -> Pretrained:
    return pretrained(tiny_lm, shape, bpe(portable=True))


def fields(gguf: Any, path: Path) -> dict[str, Any]:
    reader = gguf.GGUFReader(path)
    return {name: field.contents() for name, field in reader.fields.items()}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_fields_say_what_the_network_is(
    gguf: Any, tiny_lm: Build, tmp_path: Path, shape: str
) -> None:
    found = fields(gguf, export(given(tiny_lm, shape), tmp_path / "small.gguf", format="gguf"))
    asked = SHAPES[shape]
    family = "qwen3" if asked.get("qk_norm", True) else "llama"
    expected = {
        "general.architecture": family,
        "general.name": "small",
        "general.file_type": gguf.LlamaFileType.ALL_F32,
        f"{family}.context_length": 256,
        f"{family}.embedding_length": 32,
        f"{family}.block_count": 2,
        f"{family}.feed_forward_length": 96 if "d_ff" in asked else 48,
        f"{family}.attention.head_count": 4,
        f"{family}.attention.head_count_kv": asked.get("n_kv_heads", 4),
        f"{family}.attention.key_length": asked.get("head_dim", 8),
        f"{family}.attention.value_length": asked.get("head_dim", 8),
        f"{family}.rope.dimension_count": asked.get("head_dim", 8),
        f"{family}.rope.freq_base": asked.get("rope_theta", 10_000.0),
        f"{family}.vocab_size": bpe(portable=True).vocab_size,
    }
    assert {name: found.get(name) for name in expected} == expected
    eps = found[f"{family}.attention.layer_norm_rms_epsilon"]
    assert eps == pytest.approx(asked.get("norm_eps", 1e-6))


def test_the_fields_say_what_the_tokenizer_is(gguf: Any, tiny_lm: Build, tmp_path: Path) -> None:
    found = fields(gguf, export(given(tiny_lm), tmp_path / "model.gguf", format="gguf"))
    expected = {
        "model": "gpt2",
        "pre": "superbpe",
        "bos_token_id": 0,
        "padding_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 3,
        "add_bos_token": True,
        "add_eos_token": False,
        "add_space_prefix": False,
        "suppress_tokens": [1],
    }
    assert {name: found.get(f"tokenizer.ggml.{name}") for name in expected} == expected
    tokens, kinds = (found[f"tokenizer.ggml.{name}"] for name in ("tokens", "token_type"))
    own = bpe(portable=True)._tokenizer
    assert tokens == [own.id_to_token(i) for i in range(own.get_vocab_size())]
    kind = gguf.TokenType
    assert kinds[:4] == [kind.CONTROL, kind.CONTROL, kind.CONTROL, kind.UNKNOWN]
    assert set(kinds[4:]) == {kind.NORMAL}
    merges = found["tokenizer.ggml.merges"]
    assert len(merges) == len(tokens) - 4 - 256
    assert all("".join(merge.split(" ")) in tokens for merge in merges)


@pytest.mark.parametrize("shape", ["tied", "untied", "llama"])
def test_the_tensors_are_those_of_a_hugging_face_folder(
    gguf: Any, tiny_lm: Build, tmp_path: Path, shape: str
) -> None:
    network = given(tiny_lm, shape)
    reader = gguf.GGUFReader(export(network, tmp_path / "model.gguf", format="gguf"))
    found = {tensor.name: tensor.data for tensor in reader.tensors}
    parts = LAYER | ({"attn_q_norm", "attn_k_norm"} if shape != "llama" else set())
    names = {f"blk.{layer}.{part}.weight" for layer in range(2) for part in parts}
    names |= {"token_embd.weight", "output_norm.weight"}
    assert found.keys() == names | ({"output.weight"} if shape == "untied" else set())
    known = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, 2)
    for theirs, tensor in tensors_of(network.network).items():
        name = known.get_name(theirs, try_suffixes=(".weight",))
        if shape == "llama" and name.endswith(("attn_q.weight", "attn_k.weight")):
            heads = tensor.view(4, 8, 32)  # channels 0 and 4 turn together, and so on
            tensor = heads[:, [0, 4, 1, 5, 2, 6, 3, 7]].reshape(32, 32)
        assert np.array_equal(found[name], tensor.numpy()), name


@pytest.mark.parametrize(("dtype", "off"), [("F16", 1e-3), ("Q8_0", 1e-2)])
def test_matrices_may_be_smaller(
    gguf: Any, tiny_lm: Build, tmp_path: Path, dtype: module.Dtype, off: float
) -> None:
    """Vectors stay float32, and rows that Q8_0 cannot cut into blocks become F16."""
    network = given(tiny_lm)
    path = export(network, tmp_path / "model.gguf", format="gguf", dtype=dtype)
    kinds = gguf.GGMLQuantizationType
    reader = gguf.GGUFReader(path)
    assert fields(gguf, path)["general.file_type"] == gguf.LlamaFileType[f"MOSTLY_{dtype}"]
    found = {tensor.name: tensor for tensor in reader.tensors}
    for name, tensor in found.items():
        wanted = kinds.F32 if name.endswith("norm.weight") else kinds[dtype]
        if "ffn_down" in name:  # 48 columns
            wanted = kinds.F16
        assert tensor.tensor_type == wanted, name
    own = network.network.embedding.weight.detach().numpy()
    stored = found["token_embd.weight"]
    numbers = gguf.quants.dequantize(stored.data, stored.tensor_type)
    assert np.abs(numbers - own).max() <= off * np.abs(own).max()
    assert not numbers[1].any()


def test_what_is_there_is_replaced_only_when_asked_for(
    gguf: Any, tiny_lm: Build, tmp_path: Path
) -> None:
    target, network = tmp_path / "model.gguf", given(tiny_lm)
    before = os.umask(0o022)
    try:
        export(network, target, format="gguf")
    finally:
        os.umask(before)
    assert target.stat().st_mode & 0o777 == 0o644
    with pytest.raises(UserError, match="exists already: give another --output, or --overwrite"):
        export(network, target, format="gguf")
    export(network, target, format="gguf", dtype="F16", overwrite=True)
    target.write_text("mine")
    with pytest.raises(UserError, match="is no GGUF file: it is not replaced"):
        export(network, target, format="gguf", overwrite=True)
    with pytest.raises(UserError, match=r"is a folder: give a file with --output"):
        export(network, tmp_path, format="gguf", overwrite=True)
    with pytest.raises(UserError, match="--dtype is 'Q4'; choose F32, F16, Q8_0"):
        export(network, tmp_path / "x", format="gguf", dtype="Q4")  # type: ignore[arg-type]
    assert sorted(tmp_path.iterdir()) == [target] and target.read_text() == "mine"


def test_a_full_disk_leaves_what_there_was(
    gguf: Any, tiny_lm: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = export(given(tiny_lm), tmp_path / "model.gguf", format="gguf")
    before = target.read_bytes()

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", full)
    with pytest.raises(UserError, match=r"the disk is full.*--output"):
        export(given(tiny_lm, "untied"), target, format="gguf", overwrite=True)
    assert list(tmp_path.iterdir()) == [target] and target.read_bytes() == before


def test_a_tokenizer_with_other_ids_there_writes_nothing(
    gguf: Any, tiny_lm: Build, tmp_path: Path
) -> None:
    model = TextModel(pretrained(tiny_lm), device="cpu")
    with pytest.raises(UserError, match=r"of \d+ texts other ids"):
        model.export(tmp_path / "model.gguf", format="gguf")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_has_one_type(tiny_lm: Build, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--dtype F16 is for --format gguf; huggingface is F32"):
        export(given(tiny_lm), tmp_path / "model", dtype="F16")


def test_without_the_package_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    told = run("export", "--checkpoint", "best", "--output", tmp_path / "x", "--format", "gguf")
    assert "python -m pip install gguf" in told.error_line()
    assert list(tmp_path.iterdir()) == []


def test_the_command_exports_a_folder_as_a_file(gguf: Any, tiny_lm: Build, tmp_path: Path) -> None:
    export(given(tiny_lm), tmp_path / "model")
    told = run(
        *("export", "--checkpoint", tmp_path / "model", "--output", tmp_path / "m.gguf"),
        *("--format", "gguf", "--dtype", "Q8_0"),
    )
    assert told.status == 0, told.err
    assert f"llama-cli -m {tmp_path / 'm.gguf'}" in told.line("written")
    assert fields(gguf, tmp_path / "m.gguf")["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q8_0
