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
from lightning_embed.tokens.tokenizer import TextTokenizer

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
        ({"hidden_size": "wide"}, "hidden_size is 'wide', not a whole number"),
        ({"hidden_size": 64}, r"has the shape \(\d+, 32\), not \(\d+, 64\)"),
        ({"num_hidden_layers": 3}, "num_hidden_layers is 3, but its weights are of 2"),
        ({"num_hidden_layers": 1}, "is 1, but its weights are of 2"),
        ({"num_hidden_layers": 10**6}, "is 1000000, but its weights are of 2"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, not a whole number from"),
        (
            {"num_hidden_layers": 2.0},
            r"config\.json: num_hidden_layers is 2\.0, not a whole number",
        ),
        ({"hidden_size": 32.5}, r"hidden_size is 32\.5, not a whole number"),
        ({"hidden_size": True}, "hidden_size is True, not a whole number"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0, not a whole number from 1"),
        (
            {"model_type": "llama", "num_attention_heads": 5, "head_dim": None},
            r"width of a head is 6\.4, not an even",
        ),
        ({"head_dim": 7}, "width of a head is 7, not an even"),
        ({"num_key_value_heads": 3}, "num_attention_heads is 4, not a multiple of num_key_value"),
        ({"max_position_embeddings": "long"}, "max_position_embeddings is 'long', not a whole"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan, not a number above 0"),
        ({"rope_theta": -1}, "rope_theta is -1, not a number above 0"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings is 1, not true or false"),
        ({"rope_scaling": "x"}, r"rope scaling \(rope_scaling is 'x'\)"),
        ({"model_type": ["llama"]}, r"of the family \['llama'\]"),
        ({"layer_types": 5, "hidden_act": "gelu"}, "the activation"),
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
    told = str(refused.value)
    assert str(folder) in told and "\n" not in told and "--model" not in told


@pytest.mark.parametrize("name", ["hidden_size", "num_attention_heads", "num_hidden_layers"])
def test_a_size_that_is_null_is_refused(folder: Path, name: str) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8")) | {name: None}
    file.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UserError, match=f"{name} is None, not a whole number"):
        read_folder(folder)


@pytest.mark.parametrize(
    ("change_one", "words"),
    [
        (lambda x: torch.tensor(1.0), r"has the shape \(\), not \(32,\)"),
        (lambda x: x.long(), "is of the type int64, not of floating-point numbers"),
        (lambda x: x > 0, "is of the type bool"),
        (lambda x: x.to(torch.complex64), "is of the type complex64"),
        (lambda x: torch.full_like(x, torch.nan), "holds NaN or infinity"),
        (lambda x: torch.full_like(x, -torch.inf), "holds NaN or infinity"),
        (lambda x: torch.full_like(x, 1e300, dtype=torch.float64), "holds NaN or infinity"),
    ],
)
def test_weights_that_are_none_are_refused(
    folder: Path, change_one: Callable[[torch.Tensor], torch.Tensor], words: str
) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors["model.norm.weight"] = change_one(tensors["model.norm.weight"])
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(UserError, match=rf"model\.norm\.weight {words}"):
        read_folder(folder)


def test_a_tied_matrix_may_be_stored_under_either_name(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    save_file(tensors, folder / WEIGHTS)
    change(folder, tie_word_embeddings=True)
    found = read_folder(folder).network
    assert torch.equal(found.embedding.weight, tensors["lm_head.weight"])
    assert found.head is None


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


def test_a_vocabulary_whose_id_1_is_a_word_is_refused_with_the_way_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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

    def refuse(*_: object) -> None:
        raise UserError("cannot be adopted")

    monkeypatch.setattr(TextTokenizer, "adopt", refuse)  # no way out
    with pytest.raises(UserError, match=r"cannot be taken$"):
        read_folder(folder)
