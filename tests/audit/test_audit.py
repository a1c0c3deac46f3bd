"""`audit`: every verdict, every kind of file, and nothing in a file is ever run."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from workshop import ROOT, run

from lightning_embed.training.lightning_module import LanguageModel

ROWS, WIDTH = 12, 4
TOKENS = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
ROLES = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}
CONFIG = {"pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 0, "tie_word_embeddings": True}
NAME = "model.embed_tokens.weight"


def matrix(row: float | None = 0.0, index: int = 1) -> Tensor:
    """Rows of norm 2, but for the padding row, which is `row` everywhere."""
    weight = torch.ones(ROWS, WIDTH)
    if row is not None:
        weight[index] = row
    return weight


def folder(
    path: Path,
    tensors: dict[str, Tensor] | None = None,
    *,
    config: dict[str, Any] | None = None,
    roles: dict[str, Any] | None = None,
    form: str = "safetensors",
) -> Path:
    """A Hugging Face folder that is clean unless told otherwise."""
    path.mkdir(exist_ok=True)
    tensors = tensors or {NAME: matrix(), "model.norm.weight": torch.ones(WIDTH)}
    (path / "config.json").write_text(json.dumps(CONFIG | (config or {})))
    (path / "tokenizer_config.json").write_text(json.dumps(ROLES if roles is None else roles))
    (path / "tokenizer.json").write_text(
        json.dumps({"added_tokens": [{"content": k, "id": v} for k, v in TOKENS.items()]})
    )
    if form == "safetensors":
        save_file(tensors, path / "model.safetensors")
    elif form == "bin":
        torch.save(tensors, path / "pytorch_model.bin")
    else:
        suffix, stem = form.split()[1], "model" if "safetensors" in form else "pytorch_model"
        where = {}
        for number, (name, tensor) in enumerate(tensors.items(), 1):
            shard = f"{stem}-{number:05}-of-{len(tensors):05}.{suffix}"
            where[name] = shard
            saved = {name: tensor}
            save_file(saved, path / shard) if stem == "model" else torch.save(saved, path / shard)
        index = path / f"{stem}.{suffix}.index.json"
        index.write_text(json.dumps({"weight_map": where}))
    return path


def audited(path: Path, *more: str) -> tuple[int, dict[str, Any]]:
    """Exit status and the report as JSON, which lines must agree with."""
    told = run("audit", path, "--json", *more)
    assert told.err == "" and told.status in (0, 1), told.err
    lines = run("audit", path, *more)
    assert lines.status == told.status
    report: dict[str, Any] = json.loads(told.out)
    shown = [line[:9].strip() for line in lines.out.splitlines()]
    assert shown == ["audit", *(fact["verdict"] for fact in report["facts"]), "verdict"]
    for fact in report["facts"]:
        assert fact["text"] in lines.out
    found = sum(fact["verdict"] == "finding" for fact in report["facts"])
    assert report["findings"] == found and told.status == bool(found)
    return told.status, report


def facts(report: dict[str, Any], about: str, verdict: str | None = None) -> list[dict[str, Any]]:
    return [
        fact
        for fact in report["facts"]
        if fact["about"] == about and verdict in (None, fact["verdict"])
    ]


def findings(report: dict[str, Any]) -> list[str]:
    """What the findings are about."""
    return [fact["about"] for fact in report["facts"] if fact["verdict"] == "finding"]


def refused(path: Path | str, *more: str) -> str:
    """The one line about something that cannot be audited."""
    told = run("audit", path, *more)
    assert told.status == 2 and told.out == ""
    return told.error_line()


# -- clean -----------------------------------------------------------------------------------

FORMS = ["safetensors", "bin", "sharded safetensors", "sharded bin"]


@pytest.mark.parametrize("form", FORMS)
def test_a_clean_folder(tmp_path: Path, form: str) -> None:
    status, report = audited(folder(tmp_path / "clean", form=form))
    assert status == 0
    assert report["padding_idx"] == 1
    (row,) = facts(report, "row", "ok")
    assert (row["embedding"], row["shape"], row["row"]) == (NAME, [ROWS, WIDTH], 1)
    assert (row["state"], row["norm"], row["median_norm"]) == ("zero", 0, 2)
    assert facts(report, "padding id", "ok") and facts(report, "padding is", "ok")
    assert facts(report, "head", "note")[0]["tied"] is True
    assert run("audit", tmp_path / "clean").out.splitlines()[-1].split() == ["verdict", "clean"]


@pytest.mark.parametrize("form", FORMS)
def test_a_row_that_is_not_zero_is_found_in_every_form(tmp_path: Path, form: str) -> None:
    status, report = audited(folder(tmp_path / "moved", {NAME: matrix(0.25)}, form=form))
    assert status == 1 and findings(report) == ["row"]
    (row,) = facts(report, "row")
    assert row["norm"] == 0.5 and row["larger_than_percent"] == 0


# -- the row ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "state", "says"),
    [
        (0.25, "not zero", "norm 0.5, the others' median 2, larger than 0 %"),
        (5.0, "not zero", "larger than 100 %"),
        (1e-30, "not zero", "norm 2e-30"),
        (-0.0, "minus zero", "-0 in 4 of 4 places"),
        (float("nan"), "not finite", "NaN in 4 of 4"),
        (float("inf"), "not finite", "infinite in 4 of 4"),
    ],
)
def test_states_of_the_row(tmp_path: Path, value: float, state: str, says: str) -> None:
    _, report = audited(folder(tmp_path / "model", {NAME: matrix(value)}))
    (row,) = facts(report, "row", "finding")
    assert row["state"] == state and says in row["text"]


@pytest.mark.parametrize("value", [-0.0, float("nan"), 1.0])
def test_a_single_wrong_place_is_enough(tmp_path: Path, value: float) -> None:
    weight = matrix()
    weight[1, 2] = value
    assert findings(audited(folder(tmp_path / "model", {NAME: weight}))[1]) == ["row"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_stored_kinds_of_numbers(tmp_path: Path, dtype: torch.dtype) -> None:
    assert audited(folder(tmp_path / "zero", {NAME: matrix().to(dtype)}))[0] == 0
    assert audited(folder(tmp_path / "minus", {NAME: matrix(-0.0).to(dtype)}))[0] == 1
    assert audited(folder(tmp_path / "moved", {NAME: matrix(1e-7).to(dtype)}))[0] == 1


def test_a_matrix_of_integers_is_said_not_to_be_looked_at(tmp_path: Path) -> None:
    path = folder(tmp_path / "model", {NAME: torch.zeros(ROWS, WIDTH, dtype=torch.int8)})
    report = audited(path)[1]
    assert "int8: not looked at" in facts(report, "embedding", "note")[0]["text"]
    assert not facts(report, "row")


TOKEN_EMBEDDINGS = (
    "model.embed_tokens.weight",
    "transformer.wte.weight",
    "bert.embeddings.word_embeddings.weight",
    "shared.weight",
    "tok_embeddings.weight",
    "gpt_neox.embed_in.weight",
    "embedding.weight",
    "src_embed.weight",
    "module.net.token_emb.weight",
    "net._orig_mod.embedding._orig_mod.weight",
    "weight",
)


@pytest.mark.parametrize("name", TOKEN_EMBEDDINGS)
def test_names_of_token_embeddings(tmp_path: Path, name: str) -> None:
    torch.save({name: matrix(0.25)}, tmp_path / "weights.pt")
    _, report = audited(tmp_path / "weights.pt", "--padding_idx", "1")
    assert [fact["embedding"] for fact in facts(report, "row")] == [name]


def test_positions_and_types_are_no_tokens(tmp_path: Path) -> None:
    others = ("embeddings.position_embeddings", "embeddings.token_type_embeddings", "wpe")
    others += ("decoder.embed_positions", "pos_emb", "experts.shared")
    tensors = {NAME: matrix(), **{f"{name}.weight": matrix(9.0) for name in others}}
    _, report = audited(folder(tmp_path / "model", tensors))
    assert [fact["embedding"] for fact in facts(report, "row")] == [NAME]


def test_two_embeddings_are_two_facts_and_a_copy_is_none(tmp_path: Path) -> None:
    tensors = {"shared.weight": matrix(), "decoder.embed_tokens.weight": matrix()}
    tensors["encoder.embed_tokens.weight"] = matrix(3.0)
    _, report = audited(folder(tmp_path / "model", tensors))
    assert sorted(fact["verdict"] for fact in facts(report, "row")) == ["finding", "ok"]
    (copy,) = facts(report, "embedding", "note")
    assert "same matrix" in copy["text"]


# -- the padding id --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "roles", "says"),
    [
        ({"pad_token_id": 3, "unk_token_id": None}, {"pad_token": "<pad>"}, "'<pad>' = 1"),
        ({"pad_token_id": None}, ROLES, "config has none, the tokenizer pads with '<pad>' = 1"),
        ({}, {"pad_token": "<padding>"}, "padding '<padding>' has no id"),
        ({"pad_token_id": "1"}, ROLES, "'1', not a whole number"),
        ({"pad_token_id": True}, ROLES, "True, not a whole number"),
    ],
)
def test_config_against_tokenizer(
    tmp_path: Path, config: dict[str, Any], roles: dict[str, Any], says: str
) -> None:
    report = audited(folder(tmp_path / "model", config=config, roles=roles))[1]
    (fact,) = facts(report, "padding id", "finding")
    assert says in fact["text"]


def test_a_tokenizer_without_padding(tmp_path: Path) -> None:
    path = folder(tmp_path / "model", roles={"eos_token": "</s>"})
    (path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0, "</s>": 2}}}))
    (fact,) = facts(audited(path)[1], "padding id", "finding")
    assert "1 in config, but the tokenizer has no padding" in fact["text"]


@pytest.mark.parametrize("idx", [ROWS, 10**30])
def test_an_id_outside_the_vocabulary(tmp_path: Path, idx: int) -> None:
    path = folder(tmp_path / "model", config={"pad_token_id": idx}, roles={"pad_token": "[x]"})
    (path / "tokenizer.json").unlink()
    report = audited(path)[1]
    (fact,) = facts(report, "padding id", "finding")
    assert f"outside the {ROWS} rows" in fact["text"]
    assert facts(report, "row", "note")[0]["text"].endswith(f"no row {idx}")


def test_a_negative_id_in_config_names_the_row_torch_takes(tmp_path: Path) -> None:
    path = folder(tmp_path / "model", config={"pad_token_id": -1})
    texts = " ".join(fact["text"] for fact in facts(audited(path)[1], "padding id", "finding"))
    assert f"nn.Embedding takes it for row {ROWS - 1}" in texts


def test_generation_config_says_something_else(tmp_path: Path) -> None:
    path = folder(tmp_path / "model")
    (path / "generation_config.json").write_text('{"pad_token_id": 1}')
    assert audited(path)[0] == 0
    (path / "generation_config.json").write_text('{"pad_token_id": 2}')
    (fact,) = facts(audited(path)[1], "padding id", "finding")
    assert "2 in generation_config.json, but 1 in config.json" in fact["text"]


@pytest.mark.parametrize("role", ["eos", "bos", "unk"])
@pytest.mark.parametrize("where", ["config", "list", "tokenizer"])
def test_padding_that_is_another_special_token(tmp_path: Path, role: str, where: str) -> None:
    told = {"config": 1, "list": [2, 1], "tokenizer": None}[where]
    roles = ROLES | ({f"{role}_token": {"content": "<pad>"}} if where == "tokenizer" else {})
    path = folder(tmp_path / "model", config={f"{role}_token_id": told}, roles=roles)
    assert findings(audited(path)[1]) == [f"padding is {role}"]


def test_no_padding_id_anywhere_is_a_note(tmp_path: Path) -> None:
    path = folder(tmp_path / "model", config={"pad_token_id": None}, roles={})
    (path / "tokenizer.json").write_text("{}")
    status, report = audited(path)
    assert status == 0 and report["padding_idx"] is None
    assert "--padding_idx N" in facts(report, "padding id", "note")[0]["text"]
    assert facts(report, "row", "note")[0]["zero_rows"] == 1
    assert "no known padding id" in run("audit", path).out.splitlines()[-1]


@pytest.mark.parametrize(
    "files",
    [
        {"special_tokens_map.json": {"pad_token": "<p>"}, "vocab.json": {"<p>": 7}},
        {"tokenizer.json": {"padding": {"pad_token": "p"}, "model": {"vocab": [["p", -1.0]] * 8}}},
        {
            "tokenizer_config.json": {
                "pad_token": {"content": "<p>"},
                "added_tokens_decoder": {"7": {"content": "<p>"}},
            }
        },
        {"vocab.json": {"[PAD]": 7}},
        {"added_tokens.json": {"<pad>": 7}},
    ],
)
def test_where_tokenizers_keep_their_padding(tmp_path: Path, files: dict[str, Any]) -> None:
    path = folder(tmp_path / "model", {NAME: matrix(index=7)}, config={"pad_token_id": 7})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path / name).unlink()
    for name, content in files.items():
        (path / name).write_text(json.dumps(content))
    status, report = audited(path)
    assert status == 0
    assert facts(report, "padding id", "ok")[0]["tokenizer"] == 7


def test_the_text_part_of_a_config(tmp_path: Path) -> None:
    config = {"pad_token_id": None, "text_config": {"pad_token_id": 1}}
    assert audited(folder(tmp_path / "model", config=config))[0] == 0


# -- the head --------------------------------------------------------------------------------


def test_a_head_that_is_the_embedding(tmp_path: Path) -> None:
    path = folder(
        tmp_path / "model",
        {NAME: matrix(), "lm_head.weight": matrix()},
        config={"tie_word_embeddings": None},
    )
    status, report = audited(path)
    assert status == 0
    (head,) = facts(report, "head", "note")
    assert head["tied"] is True and "lm_head.weight is the embedding" in head["text"]


@pytest.mark.parametrize(("stated", "status"), [(True, 1), (False, 0), (None, 0)])
def test_a_head_of_its_own(tmp_path: Path, stated: bool | None, status: int) -> None:
    tensors = {NAME: matrix(), "lm_head.weight": matrix(2.0)}
    path = folder(tmp_path / "model", tensors, config={"tie_word_embeddings": stated})
    found, report = audited(path)
    assert found == status
    (head,) = facts(report, "head")
    assert head["tied"] is False
    assert ("config says tied" in head["text"]) is (stated is True)


@pytest.mark.parametrize(("stated", "says"), [(False, "not tied"), (None, "none in the file")])
def test_no_head_in_the_file(tmp_path: Path, stated: bool | None, says: str) -> None:
    path = folder(tmp_path / "model", config={"tie_word_embeddings": stated})
    (head,) = facts(audited(path)[1], "head", "note")
    assert says in head["text"] and head["tied"] is stated


# -- checkpoints and their moments -----------------------------------------------------------


class Plain(L.LightningModule):
    """A module of somebody else's."""

    def __init__(self, padding_idx: int | None = 1, tied: bool = True) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.embedding = nn.Embedding(ROWS, WIDTH, padding_idx)
        self.lm_head = nn.Linear(WIDTH, ROWS, bias=False)
        if tied:
            self.lm_head.weight = self.embedding.weight

    def training_step(self, ids: Tensor, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.lm_head(self.embedding(ids)), ids)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), weight_decay=0.0)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[[L.LightningModule], Path]:
    """Trains a module two steps and saves it."""

    def build(module: L.LightningModule) -> Path:
        trainer = L.Trainer(
            max_steps=2,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        batches = [torch.tensor([3, 5, 7])] * 2
        trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
        trainer.save_checkpoint(tmp_path / "theirs.ckpt")
        return tmp_path / "theirs.ckpt"

    return build


@pytest.mark.filterwarnings("ignore")
def test_a_tied_head_is_found_in_row_and_moments(checkpoint: Callable[..., Path]) -> None:
    status, report = audited(checkpoint(Plain()))
    assert status == 1 and report["kind"] == "Lightning checkpoint"
    assert report["padding_idx"] == 1  # from its hyper-parameters
    assert findings(report) == ["row", "moments"]
    moved = facts(report, "moments")[0]["moved"]
    assert moved == {"exp_avg": 1, "exp_avg_sq": 1}


@pytest.mark.filterwarnings("ignore")
def test_a_head_of_its_own_may_have_moments(checkpoint: Callable[..., Path]) -> None:
    status, report = audited(checkpoint(Plain(tied=False)))
    assert status == 0
    (moments,) = facts(report, "moments", "note")
    assert moments["same_shape"] == ["lm_head.weight"]


@pytest.mark.parametrize("tied", [True, False])
def test_a_checkpoint_of_this_package(tmp_path: Path, tied: bool) -> None:
    module = LanguageModel(vocab_size=ROWS, max_length=8, d_model=8, n_heads=2, tied=tied)
    weights = {"model." + key: value for key, value in module.network.state_dict().items()}
    state = {"exp_avg": torch.zeros(ROWS, 8), "step": torch.tensor(2.0)}
    saved = {
        "pytorch-lightning_version": "2.6.6",
        "state_dict": weights,
        "hyper_parameters": dict(module.hparams),
        "optimizer_states": [{"state": {0: state}, "param_groups": []}],
    }
    torch.save(saved, tmp_path / "ours.ckpt")
    status, report = audited(tmp_path / "ours.ckpt")
    assert status == 0 and report["padding_idx"] == 1
    assert [fact["verdict"] for fact in report["facts"]] == ["ok"] * 4
    (head,) = facts(report, "head")
    assert head["tied"] is tied and "never predicted" in head["text"]
    state["exp_avg"][1, 3] = 1e-9
    torch.save(saved, tmp_path / "ours.ckpt")
    status, report = audited(tmp_path / "ours.ckpt")
    assert facts(report, "moments")[0]["verdict"] == ("finding" if tied else "note")


def saved_by_hand(path: Path, moment: str, value: float, optimizer: str) -> Path:
    buffer = torch.ones(ROWS, WIDTH)
    buffer[1] = value
    states = {"state": {0: {moment: buffer, "step": 3}, 1: {moment: torch.ones(3)}, 2: None}}
    content = {
        "model": {"wte.weight": matrix()},
        optimizer: [states] if optimizer == "optimizer_states" else states,
    }
    torch.save(content, path)
    return path


@pytest.mark.parametrize("optimizer", ["optimizer", "optimizer_state_dict", "optimizer_states"])
@pytest.mark.parametrize("moment", ["exp_avg", "exp_avg_sq", "momentum_buffer", "sum"])
def test_moments_that_wait_for_the_row(tmp_path: Path, moment: str, optimizer: str) -> None:
    path = saved_by_hand(tmp_path / "a.pt", moment, 1e-12, optimizer)
    status, report = audited(path, "--padding_idx", "1")
    assert status == 1 and findings(report) == ["moments"]
    assert f"{moment} of wte.weight[1] not zero" in facts(report, "moments")[0]["text"]
    path = saved_by_hand(tmp_path / "b.pt", moment, 0.0, optimizer)
    status, report = audited(path, "--padding_idx", "1")
    assert status == 0 and facts(report, "moments", "ok")


# -- bare state dicts ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.bin", "w.safetensors"])
def test_a_bare_state_dict_needs_to_be_told_the_id(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    tensors = {"embedding.weight": matrix(0.25)}
    save_file(tensors, path) if name.endswith("safetensors") else torch.save(tensors, path)
    status, report = audited(path)
    assert status == 0 and report["padding_idx"] is None
    for told, idx, status in (("1", 1, 1), ("-11", 1, 1), ("4", 4, 1)):
        found, report = audited(path, "--padding_idx", told)
        assert (found, report["padding_idx"]) == (status, idx)
    assert f"--padding_idx {ROWS}" in refused(path, "--padding_idx", str(ROWS))
    assert "--padding_idx -13" in refused(path, "--padding_idx", "-13")


def test_the_older_form_of_torch_save_and_a_tensor_alone(tmp_path: Path) -> None:
    torch.save({"wte.weight": matrix()}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save(matrix(), tmp_path / "alone.pt")
    torch.save(nn.Embedding(ROWS, WIDTH, 1).weight, tmp_path / "parameter.pt")
    for name in ("old.pt", "alone.pt", "parameter.pt"):
        assert audited(tmp_path / name, "--padding_idx", "1")[0] == 0
        assert audited(tmp_path / name, "--padding_idx", "2")[0] == 1


def test_an_index_alone_names_its_shards(tmp_path: Path) -> None:
    path = folder(tmp_path / "model", form="sharded safetensors")
    assert audited(path / "model.safetensors.index.json", "--padding_idx", "1")[0] == 0


# -- what cannot be read ---------------------------------------------------------------------


def shorten(path: Path, by: int) -> None:
    path.write_bytes(path.read_bytes()[:-by])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("by", [1, 120])
def test_truncated(tmp_path: Path, form: str, by: int) -> None:
    path = folder(tmp_path / "model", form=form)
    weights = sorted(file for file in path.iterdir() if file.suffix in (".bin", ".safetensors"))
    shorten(weights[0], by)
    assert weights[0].name in refused(path)


def test_truncated_older_form(tmp_path: Path) -> None:
    torch.save({NAME: matrix()}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    shorten(tmp_path / "a.pt", 8)
    assert "truncated" in refused(tmp_path / "a.pt")


@pytest.mark.parametrize("suffix", ["ckpt", "bin", "safetensors"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"Dear sir or madam", "a.{suffix}"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        (b"\x80\x02}q\x00.", "no"),
        (b"\xff" * 100, "a.{suffix}"),
    ],
)
def test_foreign_content(tmp_path: Path, suffix: str, content: bytes, says: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    assert says.format(suffix=suffix) in refused(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TorchScript
@pytest.mark.parametrize("suffix", ["ckpt", "pt"])
def test_a_foreign_zip(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("letter.txt", "Dear sir or madam")
    assert "not a file of weights" in refused(path)
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), path)
    assert "TorchScript" in refused(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({}, "holds no tensors"),
        ({"epoch": 3}, "holds no tensors"),
        ([1], "holds a list, not named tensors"),
        ("x", "holds a str, not named tensors"),
        ({"norm.weight": torch.ones(4)}, "none of the 1 tensors"),
    ],
)
def test_a_pickle_without_embeddings(tmp_path: Path, content: Any, says: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    assert says in refused(tmp_path / "a.pt")


def test_a_tensor_larger_than_its_file_is_not_believed(tmp_path: Path) -> None:
    torch.save({"embedding.weight": torch.zeros(1).expand(10**9, 10**6)}, tmp_path / "a.pt")
    assert "no tensors" in refused(tmp_path / "a.pt")


def test_missing_and_addresses(tmp_path: Path) -> None:
    assert str(tmp_path / "none") in refused(tmp_path / "none")
    assert "no weights" in refused(tmp_path)
    for address in ("https://example.org/model.ckpt", "s3://bucket/model", "hf://gpt2"):
        assert "download it" in refused(address)
    (tmp_path / ".metadata").touch()
    assert "consolidate_checkpoint" in refused(tmp_path)


@pytest.mark.parametrize(
    "index",
    [
        "[]",
        "{",
        "{}",
        '{"weight_map": {"a": "../outside.safetensors"}}',
        '{"weight_map": {"a": "missing.safetensors"}}',
        '{"weight_map": {"wanted": "there.safetensors"}}',
        '{"weight_map": {"a": 7}}',
    ],
)
def test_an_index_that_lies(tmp_path: Path, index: str) -> None:
    save_file({"a": matrix()}, tmp_path / "outside.safetensors")
    (tmp_path / "model").mkdir()
    save_file({"a": matrix()}, tmp_path / "model" / "there.safetensors")
    (tmp_path / "model" / "model.safetensors.index.json").write_text(index)
    assert "model.safetensors.index.json" in refused(tmp_path / "model")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json"])
@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_settings_that_do_not_parse(tmp_path: Path, name: str, content: bytes) -> None:
    path = folder(tmp_path / "model")
    (path / name).write_bytes(content)
    assert name in refused(path)


@pytest.mark.parametrize(
    "odd",
    [
        {"added_tokens": 7, "model": [], "padding": "x"},
        {"added_tokens": [None, {"id": "x", "content": []}], "model": {"vocab": [[], 3, [None]]}},
    ],
)
def test_odd_settings_do_not_trip_it(tmp_path: Path, odd: dict[str, Any]) -> None:
    path = folder(tmp_path / "model", config={"eos_token_id": {"a": 1}, "text_config": 3})
    (path / "tokenizer.json").write_text(json.dumps(odd))
    assert audited(path)[0] == 0  # no piece has an id, so config's word stands


def test_names_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    name = "\x1b[2J\n\x07embedding.weight"
    torch.save({name: matrix()}, tmp_path / "a.pt")
    told = run("audit", tmp_path / "a.pt", "--padding_idx", "1")
    assert told.status == 0 and "\\x1b[2J \\x07embedding.weight[1]" in told.out
    assert "\x1b" not in told.out and "\x07" not in told.out


# -- code in a file is never run -------------------------------------------------------------


class Runs:
    """Unpickled, it makes a folder: the sign that code ran."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.sign),)


PROGRAM = (
    "import sys; from lightning_embed.commands.audit import audit; sys.exit(audit(sys.argv[1]))"
)
PLACES = ["pytorch_model.bin", "a.ckpt", "a.pt"]


def malicious(folder: Path, name: str, newer: bool) -> tuple[Path, Path]:
    """Something to audit, and the folder that appears if its code runs."""
    folder.mkdir()
    sign = folder / "it-ran"
    content = {"state_dict": {NAME: matrix()}, "hyper_parameters": Runs(sign)}
    torch.save(content, folder / name, _use_new_zipfile_serialization=newer)
    return (folder if name == "pytorch_model.bin" else folder / name), sign


def test_the_sign_appears_where_code_is_run(tmp_path: Path) -> None:
    """Else the tests below could not fail."""
    _, sign = malicious(tmp_path / "model", "a.pt", newer=True)
    torch.load(tmp_path / "model" / "a.pt", weights_only=False)
    assert sign.is_dir()


@pytest.mark.parametrize("newer", [True, False])
@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("forced", [True, False])
def test_code_in_a_pickle_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, newer: bool, forced: bool
) -> None:
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path, sign = malicious(tmp_path / "model", name, newer)
    line = refused(path)
    assert not sign.exists()
    assert "posix.mkdir" in line and "nothing of it was run" in line


def test_nor_in_a_process_that_began_with_the_switch(tmp_path: Path) -> None:
    path, sign = malicious(tmp_path / "model", "a.ckpt", newer=True)
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1", "OMP_NUM_THREADS": "1"},
    )
    assert told.returncode == 2 and not sign.exists(), told.stderr
    assert "nothing of it was run" in told.stderr and len(told.stderr.splitlines()) == 1


def test_nor_in_one_shard_of_many(tmp_path: Path) -> None:
    path = folder(tmp_path / "model", form="sharded bin")
    shard = max(path.glob("*.bin"))
    torch.save({"x": Runs(tmp_path / "it-ran")}, shard)
    assert shard.name in refused(path)
    assert not (tmp_path / "it-ran").exists()


def test_code_called_tensors_is_still_a_pickle(tmp_path: Path) -> None:
    torch.save(Runs(tmp_path / "it-ran"), tmp_path / "model.safetensors")
    assert "safetensors" in refused(tmp_path / "model.safetensors")
    assert not (tmp_path / "it-ran").exists()
