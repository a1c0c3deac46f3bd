"""The exported folder: its files field by field, without transformers; how it is written."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from exported_shapes import SHAPES, bpe, characters, pretrained
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import Tokenizer
from workshop import ROOT, Outcome, Workshop, assert_same_weights, run

from lightning_embed import load
from lightning_embed.errors import UserError
from lightning_embed.model.decoder import DecoderLM
from lightning_embed.pretrained import export as module
from lightning_embed.pretrained.export import export
from lightning_embed.pretrained.held_out import measure
from lightning_embed.pretrained.llama_cpp_tokens import AWKWARD
from lightning_embed.pretrained.model_card import command_of
from lightning_embed.pretrained.opening import open_pretrained

Build = Callable[..., DecoderLM]

LAYER = {  # of Llama in transformers, with the shapes of `SIZES`
    "input_layernorm": (32,),
    "post_attention_layernorm": (32,),
    "self_attn.q_proj": (32, 32),
    "self_attn.k_proj": (32, 32),
    "self_attn.v_proj": (32, 32),
    "self_attn.o_proj": (32, 32),
    "mlp.gate_proj": (48, 32),
    "mlp.up_proj": (48, 32),
    "mlp.down_proj": (32, 48),
}
QK_NORM = {"self_attn.q_norm": (8,), "self_attn.k_norm": (8,)}  # Qwen3's beside


def content(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("shape", ["tied", "untied", "llama"])
def test_the_tensors_have_the_names_and_shapes_that_transformers_expects(
    tiny_lm: Build, tmp_path: Path, shape: str
) -> None:
    given = pretrained(tiny_lm, shape)
    folder = export(given, tmp_path / "model")
    vocabulary = given.tokenizer.vocab_size
    expected = {"model.embed_tokens.weight": (vocabulary, 32), "model.norm.weight": (32,)}
    for layer in range(2):
        parts = LAYER | ({} if shape == "llama" else QK_NORM)
        expected |= {f"model.layers.{layer}.{name}.weight": size for name, size in parts.items()}
    if shape == "untied":
        expected["lm_head.weight"] = (vocabulary, 32)
    found = load_file(folder / "model.safetensors")
    assert {name: tuple(x.shape) for name, x in found.items()} == expected
    assert {x.dtype for x in found.values()} == {torch.float32}
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    own = given.network.state_dict()
    assert torch.equal(
        found["model.layers.1.mlp.down_proj.weight"], own["blocks.1.feed_forward.down_proj.weight"]
    )
    assert torch.equal(
        found["model.layers.0.input_layernorm.weight"], own["blocks.0.attention_norm.weight"]
    )
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert name not in found or not found[name][1].any()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_config_says_what_the_network_is(tiny_lm: Build, tmp_path: Path, shape: str) -> None:
    given = pretrained(tiny_lm, shape)
    config = content(export(given, tmp_path / "model"), "config.json")
    asked, family = SHAPES[shape], {"qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM"}
    assert config["model_type"] == ("qwen3" if asked.get("qk_norm", True) else "llama")
    assert config["architectures"] == [family[config["model_type"]]]
    theta = asked.get("rope_theta", 10_000.0)
    expected = {
        "vocab_size": given.tokenizer.vocab_size,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": asked.get("n_kv_heads", 4),
        "head_dim": asked.get("head_dim", 8),
        "intermediate_size": 96 if "d_ff" in asked else 48,
        "rms_norm_eps": asked.get("norm_eps", 1e-6),
        "tie_word_embeddings": asked.get("tied", True),
        "rope_theta": theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "max_position_embeddings": 256,
        "hidden_act": "silu",
        "attention_bias": False,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "dtype": "float32",
    }
    assert {name: config.get(name) for name in expected} == expected
    assert "rope_scaling" not in config and not config.get("use_sliding_window")


@pytest.mark.parametrize("shape", ["scaled", "scaled_untied"])
def test_a_scaled_embedding_is_folded_into_the_weights(
    tiny_lm: Build, tmp_path: Path, shape: str
) -> None:
    """The folder's network has no scale, and the same logits."""
    given = pretrained(tiny_lm, shape)
    back = open_pretrained(export(given, tmp_path / "model"))
    assert not back.settings["scale_embedding"]
    ids = torch.randint(2, given.tokenizer.vocab_size, (2, 60), generator=torch.manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(back.network(ids), given.network(ids), rtol=0, atol=2e-5)


@pytest.mark.parametrize("make", [bpe, partial(bpe, portable=True), characters])
def test_the_tokenizer_gives_our_ids_behind_its_first(
    tiny_lm: Build, tmp_path: Path, make: Callable[[], Any]
) -> None:
    """Read as transformers does: `split_special_tokens` is `encode_special_tokens`."""
    given = pretrained(tiny_lm, tokenizer=make())
    folder = export(given, tmp_path / "model")
    assert content(folder, "tokenizer_config.json") == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 256,
        "padding_side": "left",
    }
    theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
    theirs.encode_special_tokens = True
    for text in AWKWARD:
        ids = theirs.encode(text).ids
        assert ids == [0, *given.tokenizer.encode(text)]
        assert theirs.decode(ids, skip_special_tokens=True) == text


def test_padding_is_forbidden_when_text_is_generated(tiny_lm: Build, tmp_path: Path) -> None:
    folder = export(pretrained(tiny_lm), tmp_path / "model")
    expected = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, "suppress_tokens": [1]}
    assert content(folder, "generation_config.json") == expected


def test_it_needs_neither_lightning_nor_transformers() -> None:
    heavy = ("lightning", "transformers", "datasets", "torchmetrics", "tensorboard")
    program = f"import sys, lightning_embed.commands.export; print({set(heavy)} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.stdout.strip() == "set()", ran.stderr


# -- writing --------------------------------------------------------------------------------------


def test_files_may_be_read_by_whom_the_umask_lets(tiny_lm: Build, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        folder = export(pretrained(tiny_lm), tmp_path / "model")
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o644}
    assert sorted(file.name for file in folder.iterdir()) == sorted(module.FILES)


def test_what_is_there_is_replaced_only_when_asked_for(tiny_lm: Build, tmp_path: Path) -> None:
    target, given = tmp_path / "model", pretrained(tiny_lm)
    target.mkdir()  # an empty folder is nothing
    export(given, target)
    with pytest.raises(UserError, match="exists already: give another --output, or --overwrite"):
        export(given, target)
    (target / "README.md").write_text("mine")
    export(given, target, overwrite=True)
    assert "mine" not in (target / "README.md").read_text(encoding="utf-8")
    (target / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds notes\.txt, which no export wrote"):
        export(given, target, overwrite=True)
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(UserError, match="is no folder"):
        export(given, file, overwrite=True)
    assert file.read_text() == "mine" and (target / "notes.txt").is_file()
    with pytest.raises(UserError, match="--format is 'onnx'"):
        export(given, tmp_path / "other", format="onnx")  # type: ignore[arg-type]


@pytest.mark.parametrize("older", [False, True])
def test_a_full_disk_leaves_what_there_was(
    tiny_lm: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, older: bool
) -> None:
    target, given = tmp_path / "model", pretrained(tiny_lm)
    if older:
        export(given, target)
    before = sorted(tmp_path.rglob("*"))

    def full(path: Path, content: bytes) -> None:
        if path.name == module.WEIGHTS:
            raise OSError(errno.ENOSPC, "No space left on device")
        path.write_bytes(content)

    monkeypatch.setattr(module, "_put", full)
    with pytest.raises(UserError, match=r"the disk is full.*--output"):
        export(given, target, overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("format", ["huggingface", "gguf"])
@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("file/model", "file is a file"),
        ("file/deep/model", "file is a file"),
        ("n" * 250, "the name is too long"),
        ("deep/" + "n" * 250, "the name is too long"),
        ("n" * 300, "the name is too long"),
        ("circle/model", "circle is no folder"),
        ("circle/deep/model", "its symbolic links lead in a circle"),
        ("/proc/x", "nothing can be made there"),
        ("/proc/x/model", "nothing can be made there"),
        ("/dev/null/model", "/dev/null is no folder"),
    ],
)
def test_where_nothing_can_be_written_is_told_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: module.Format, where: str, words: str
) -> None:
    if format == "gguf":
        pytest.importorskip("gguf")
    if where.startswith("/") and not Path(where).parents[-2].is_dir():
        pytest.skip("no such file system")
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    Path("circle").symlink_to("circle")
    before = sorted(tmp_path.rglob("*"))
    told = run("export", "--checkpoint", "none", "--output", where, "--format", format)
    assert words in told.error_line() and "--output" in told.error_line()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("where", ["model", "a/b/model"])
def test_a_file_system_that_refuses_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, where: str
) -> None:
    def refuse(path: str | Path, *_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "mkdir", refuse)
    told = run("export", "--checkpoint", "none", "--output", where)
    assert f"cannot write to {where}: " in told.error_line() and "--output" in told.error_line()


def test_a_failed_export_leaves_no_folders_above_it(tiny_lm: Build, tmp_path: Path) -> None:
    told = run("export", "--checkpoint", "none", "--output", tmp_path / "a" / "b" / "model")
    assert "no checkpoint" in told.error_line() and list(tmp_path.iterdir()) == []
    target = export(pretrained(tiny_lm), tmp_path / "a" / "b" / "model")
    assert sorted(file.name for file in target.iterdir()) == sorted(module.FILES)


def test_a_file_for_llama_cpp_is_asked_for_by_format(tmp_path: Path) -> None:
    told = run("export", "--checkpoint", "none", "--output", tmp_path / "model.gguf")
    assert "--format gguf" in told.error_line() and not list(tmp_path.iterdir())


KILLED = """
import os, sys
from pathlib import Path
from lightning_embed.atomic import work_folder
with work_folder(Path(sys.argv[1])) as folder:
    (folder / "begun").touch()
    os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
@pytest.mark.parametrize("format", ["huggingface", "gguf"])
def test_what_a_killed_export_left_is_swept_by_the_next(
    tiny_lm: Build, tmp_path: Path, format: module.Format
) -> None:
    """Killed in a process of its own: one forked from here may wait for a lock for ever."""
    if format == "gguf":
        pytest.importorskip("gguf")
    command = [sys.executable, "-c", KILLED, str(tmp_path / "model")]
    assert subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}).returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".model.tmp-") and any(left.iterdir())
    given = pretrained(tiny_lm, tokenizer=bpe(portable=True))
    target = export(given, tmp_path / "model", format=format)
    assert list(tmp_path.iterdir()) == [target]


# -- the command ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(
    finished: tuple[Workshop, Outcome], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Outcome]:
    target = tmp_path_factory.mktemp("exported") / "model"
    return target, run("export", "--checkpoint", finished[0].root / "done", "--output", target)


def test_a_run_is_exported_and_measured(
    finished: tuple[Workshop, Outcome], exported: tuple[Path, Outcome]
) -> None:
    target, told = exported
    assert told.status == 0, told.err
    trained = float(finished[1].line("bits per byte"))
    assert f"bits per byte {trained:.4f}" in told.line("held out")
    assert "nats a token more" in told.line("as exported")
    given = open_pretrained(finished[0].root / "done")
    held_out = measure(given)
    assert held_out is not None
    assert held_out.tokens == held_out.whole and f"{held_out.bits_per_byte:.4f}" == f"{trained:.4f}"
    card = (target / "README.md").read_text(encoding="utf-8")
    assert f"| {held_out.loss:.4f} | {trained:.4f} |" in card
    for words in ("--model.d_model 32", "--seed_everything 42", "add_bos_token=False", "*.txt"):
        assert words in card
    assert str(finished[0].root) not in card and str(finished[0].files) not in card


def test_the_command_of_the_model_card_trains_the_same_weights(workshop: Workshop) -> None:
    """One right after the other: a shared run may be of before what other tests set in torch."""
    workshop.fit("done", "--trainer.max_epochs", "1")
    given = open_pretrained(workshop.root / "done")
    words = command_of(given.about)
    assert words[:3] == ["python", "train.py", "fit"]
    at = words.index("--data.files")  # of which the card has the last part alone
    told = run("fit", *words[3:at], *words[at + 2 :], *workshop.where, "--name", "again")
    assert told.status == 0, told.out + told.err
    assert_same_weights(workshop.checkpoint("again"), workshop.checkpoint("done", "best"))


def test_the_shift_is_that_of_a_padding_logit_of_zero(
    finished: tuple[Workshop, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured again with a network whose padding has the logit 0."""
    given = open_pretrained(finished[0].root / "done")
    found = measure(given)
    inside = given.network.logits

    def zero(hidden: torch.Tensor) -> torch.Tensor:
        logits = inside(hidden)
        return logits.masked_fill(logits == -torch.inf, 0.0)

    monkeypatch.setattr(given.network, "logits", zero)
    as_exported = measure(given)
    assert found is not None and as_exported is not None
    assert as_exported.loss - found.loss == pytest.approx(found.shift, rel=1e-2)
    assert found.shift > 1e-5


def test_where_the_text_is_not_at_hand_that_is_said(
    finished: tuple[Workshop, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nothing"))
    alone = tmp_path / "alone.ckpt"  # without its run's configuration
    alone.write_bytes(finished[0].checkpoint("done").read_bytes())
    told = run("export", "--checkpoint", alone, "--output", tmp_path / "model")
    assert told.status == 0 and "not measured" in told.line("held out")
    assert "Not measured" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")


def test_from_python(exported: tuple[Path, Outcome], tmp_path: Path) -> None:
    """An exported folder is a model like any other, and exports the same again."""
    load(exported[0]).export(tmp_path / "again")
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (exported[0] / name).read_bytes(), name


def test_what_is_refused_is_not_measured(
    exported: tuple[Path, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_embed.inference.text_model.measure", None)
    with pytest.raises(UserError, match="exists already"):
        load(exported[0]).export(exported[0])


def test_mistakes_are_told_in_one_line(exported: tuple[Path, Outcome], tmp_path: Path) -> None:
    there = ("--output", exported[0])
    assert "exists already" in run("export", "--checkpoint", "best", *there).error_line()
    none = run("export", "--checkpoint", tmp_path / "x.ckpt", "--output", tmp_path / "y")
    assert "no checkpoint at" in none.error_line()
    assert list(tmp_path.iterdir()) == []
