"""Folders of others: what is taken, what is refused in one line, and that a round trip is exact."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from exported_shapes import SHAPES, pretrained
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lightning_embed.errors import UserError
from lightning_embed.model.decoder import DecoderLM
from lightning_embed.pretrained.export import export
from lightning_embed.pretrained.huggingface import SETTINGS, ours_of, read_folder, theirs_of

Build = Callable[..., DecoderLM]
WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tiny_lm: Build, tmp_path: Path) -> Path:
    return export(pretrained(tiny_lm, "untied"), tmp_path / "model")


def change(folder: Path, **settings: Any) -> None:
    """Settings of config.json; None removes one."""
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8")) | settings
    config = {name: value for name, value in config.items() if value is not None}
    file.write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize("shape", SHAPES)
def test_import_and_export_again_are_identical(tiny_lm: Build, tmp_path: Path, shape: str) -> None:
    first = export(pretrained(tiny_lm, shape), tmp_path / "one")
    found = read_folder(first)
    second = export(found, tmp_path / "two")
    for name in (WEIGHTS, "config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    if "scale_embedding" not in SHAPES[shape]:
        own = pretrained(tiny_lm, shape)
        assert found.tokenizer.fingerprint == own.tokenizer.fingerprint
        for name, tensor in own.network.state_dict().items():
            if name == "head.weight":  # its padding row is never trained, and zeroed
                tensor = tensor.clone()
                tensor[1] = 0
            assert torch.equal(found.network.state_dict()[name], tensor), name
    assert not found.network.training


def test_names_are_translated_both_ways(tiny_lm: Build) -> None:
    names = pretrained(tiny_lm, "untied").network.state_dict()
    assert [ours_of(theirs_of(name)) for name in names] == list(names)


def test_every_setting_of_a_network_is_known_here() -> None:
    """A new one must be written into the config, folded into the weights, or refused."""
    elsewhere = {"qk_norm", "scale_embedding", *DecoderLM.FREE}
    assert DecoderLM.settings().keys() == SETTINGS.keys() | elsewhere


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_as_float32(folder: Path, dtype: torch.dtype) -> None:
    tensors = {name: x.to(dtype) for name, x in load_file(folder / WEIGHTS).items()}
    save_file(tensors, folder / WEIGHTS)
    found = read_folder(folder).network
    assert {p.dtype for p in found.parameters()} == {torch.float32}
    assert torch.equal(found.norm.weight, tensors["model.norm.weight"].float())


def test_rows_beyond_the_tokenizer_are_left_out_and_counted(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = torch.cat([tensors[name], torch.ones(6, 32)])
    save_file(tensors, folder / WEIGHTS)
    found = read_folder(folder)
    assert found.about["ids_left_out"] == 6
    assert found.network.embedding.weight.shape[0] == found.tokenizer.vocab_size


def test_settings_of_transformers_4_and_5_and_their_defaults(folder: Path) -> None:
    change(folder, rope_parameters=None, rope_theta=5e5)
    assert read_folder(folder).settings["rope_theta"] == 5e5
    change(folder, rope_theta=None, rope_parameters={"rope_type": "default", "rope_theta": 1e6})
    assert read_folder(folder).settings["rope_theta"] == 1e6
    change(folder, rope_parameters=None, rms_norm_eps=None, tie_word_embeddings=None)
    found = read_folder(folder).settings
    assert (found["rope_theta"], found["norm_eps"], found["tied"]) == (1e4, 1e-6, False)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_type": "gpt2"}, "of the family 'gpt2'; taken are llama and qwen3"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, r"rope scaling \(linear\)"),
        (
            {"rope_parameters": {"rope_type": "llama3", "factor": 8.0, "rope_theta": 1e4}},
            r"rope scaling \(llama3\)",
        ),
        ({"rope_theta": 5e5}, "two values of rope_theta"),
        ({"attention_bias": True}, "attention biases"),
        ({"mlp_bias": True}, "biases in the feed-forward"),
        ({"use_sliding_window": True, "sliding_window": 128}, r"a sliding window \(128\)"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "a sliding window in some"),
        ({"hidden_act": "gelu"}, "the activation 'gelu'"),
        ({"quantization_config": {"bits": 4}}, "quantized weights"),
        ({"partial_rotary_factor": 0.5}, "rotary positions in a part of each head"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"hidden_size": "wide"}, "hidden_size is 'wide', not a number"),
        ({"hidden_size": 64}, r"has the shape \(\d+, 32\), not \(\d+, 64\)"),
        ({"num_hidden_layers": 3}, r"lacks the tensor model\.layers\.2\."),
        ({"num_hidden_layers": 1}, r"has a tensor model\.layers\.1\..* more than this network"),
        ({"tie_word_embeddings": True}, r"lm_head\.weight is not the embedding"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_what_this_network_cannot_be_is_refused(
    folder: Path, settings: dict[str, Any], words: str
) -> None:
    change(folder, **settings)
    with pytest.raises(UserError, match=words) as refused:
        read_folder(folder)
    assert str(folder) in str(refused.value) and "\n" not in str(refused.value)


def test_a_missing_head_is_refused(folder: Path) -> None:
    """transformers would draw a random one."""
    tensors = load_file(folder / WEIGHTS)
    del tensors["lm_head.weight"]
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(UserError, match=r"tie_word_embeddings is false, but there is no lm_head"):
        read_folder(folder)
    change(folder, tie_word_embeddings=True)
    assert read_folder(folder).settings["tied"]


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json", "config.json"])
def test_missing_and_damaged_files_are_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:100])
    with pytest.raises(UserError, match=name):
        read_folder(folder)
    (folder / name).unlink()
    with pytest.raises(UserError, match=name.replace("model.", "no weights|model.")):
        read_folder(folder)


def test_a_vocabulary_whose_id_1_is_a_word_is_refused_with_the_way_out(folder: Path) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        ["some words"], trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet)
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    word = tokenizer.id_to_token(1)
    with pytest.raises(UserError) as refused:
        read_folder(folder)
    told = str(refused.value)
    assert f"id 1 is {word!r}, but padding here" in told and "tokenizer --adopt" in told
    tokenizer.decoder = tokenizer.pre_tokenizer = None  # no byte-level BPE, so no way out
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(UserError, match=r"cannot be taken$"):
        read_folder(folder)
