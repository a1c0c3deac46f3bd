"""`fit --init_from`: a new run begins with trained weights, and all else is new."""

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from exported_shapes import pretrained
from safetensors.torch import load_file, save_file
from workshop import (
    Outcome,
    Workshop,
    assert_same_weights,
    load,
    padding_is_zero,
    run,
    write_corpus,
)

from lightning_embed.commands import dial
from lightning_embed.model.decoder import DecoderLM
from lightning_embed.pretrained.export import export
from lightning_embed.pretrained.model_card import command_of, model_card
from lightning_embed.pretrained.opening import open_pretrained
from lightning_embed.tokens.tokenizer import TextTokenizer
from lightning_embed.training import sizing

# As in `workshop.TINY`, but for the sizes, which come from the weights.
PLAIN = (
    *("--model.compile", "false", "--data.max_length", "32", "--data.tokens_per_batch", "256"),
    *("--trainer.precision", "32-true", "--samples.max_new_tokens", "0"),
    *("--trainer.accelerator", "cpu", "--pages.pictures", "false"),
)
STILL = ("--model.lr", "0", "--model.muon_lr", "0")


@pytest.fixture
def other_text(workshop: Workshop, tmp_path: Path) -> Workshop:
    """The same places with another corpus."""
    files = write_corpus(tmp_path / "other", documents=20, seed=7)
    return Workshop(files, workshop.cache, workshop.root)


def begin(shop: Workshop, source: Path, *more: str | Path, steps: int = 1) -> Outcome:
    limit = ("--trainer.max_steps", str(steps), "--init_from", source)
    return run("fit", "--name", "new", *PLAIN, *shop.where, *limit, *more)


def began(shop: Workshop, source: Path, *more: str | Path, steps: int = 1) -> Outcome:
    told = begin(shop, source, *more, steps=steps)
    assert told.status == 0, told.out + told.err
    return told


def settings(shop: Workshop, name: str = "new") -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((shop.root / name / "config.yaml").read_text())
    return found


def test_a_run_begins_with_the_weights_and_the_tokenizer_of_another(
    finished: tuple[Workshop, Outcome], other_text: Workshop
) -> None:
    source = finished[0].root / "done"
    told = began(other_text, source, *STILL)
    assert "its tokenizer is kept" in told.line("init")
    assert "padding row is zero" in told.out
    new, old = other_text.checkpoint("new"), finished[0].checkpoint("done", "best")
    assert_same_weights(new, old)
    assert load(new)["tokenizer"] == load(old)["tokenizer"]
    assert load(new)["TextDataModule"]["data"] != load(old)["TextDataModule"]["data"]
    assert load(new)["global_step"] == 1
    written = settings(other_text)
    assert written["init_from"] == str(source)
    assert written["model"]["d_model"] == 32 and written["model"]["n_layers"] == 2
    assert written["data"]["tokenizer"] == str(other_text.root / "new" / "tokenizer.json")
    config = ("--config", other_text.root / "new" / "config.yaml")
    scored = run("validate", *config)
    assert scored.status == 0 and "no effect" not in scored.out, scored.out + scored.err
    assert "has no effect" in run("validate", *config, "--init_from", source).line("note")


def test_its_model_card_says_so_and_has_a_command_that_works(
    finished: tuple[Workshop, Outcome], other_text: Workshop
) -> None:
    source = finished[0].root / "done"
    began(other_text, source)
    given = open_pretrained(other_text.root / "new")
    card = model_card(given, None)
    assert "trained further from the weights of `done`" in card and "from scratch" not in card
    words = command_of(given.about)
    assert "--data.tokenizer" not in words and words[-2:] == ["--init_from", "done"]
    at = words.index("--data.files")  # of which the card has the last part alone, as of the source
    again = (*words[2:at], *words[at + 2 : -2], "--init_from", source, *other_text.where)
    told = run(*again, "--name", "again", "--samples.max_new_tokens", "0")
    assert told.status == 0, told.out + told.err
    assert_same_weights(other_text.checkpoint("again"), other_text.checkpoint("new"))


def test_a_resume_does_not_read_it_again(
    finished: tuple[Workshop, Outcome], other_text: Workshop, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(finished[0].root / "done", source)
    began(other_text, source, "--name", "whole", steps=6)
    began(other_text, source, "--trainer.max_steps", "3", "--model.schedule_steps", "6")
    shutil.rmtree(source)
    folder = other_text.root / "new"
    on = ("--config", folder / "config.yaml", "--ckpt_path", folder, "--trainer.max_steps", "6")
    told = run("fit", *on, "--init_from", source)
    assert told.status == 0, told.out + told.err
    assert "has no effect: the weights are those of" in told.line("note")
    assert_same_weights(other_text.checkpoint("new"), other_text.checkpoint("whole"))


def test_a_hugging_face_folder_gives_the_same(
    tiny_lm: Callable[..., DecoderLM], other_text: Workshop, tmp_path: Path
) -> None:
    given = pretrained(tiny_lm, "wide_heads")
    export(given, tmp_path / "model")
    told = began(other_text, tmp_path / "model", *STILL)
    found = load(other_text.checkpoint("new"))
    for name, tensor in given.network.state_dict().items():
        assert torch.equal(found["state_dict"][f"model.{name}"], tensor), name
    assert found["hyper_parameters"]["head_dim"] == 16
    assert found["hyper_parameters"]["norm_eps"] == 1e-5
    assert TextTokenizer.from_json(found["tokenizer"]).fingerprint == given.tokenizer.fingerprint
    assert "padding row is zero" in told.out


def test_a_padding_row_that_is_not_zero_is_zeroed_and_that_is_said(
    tiny_lm: Callable[..., DecoderLM], other_text: Workshop, tmp_path: Path
) -> None:
    export(pretrained(tiny_lm), tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.embed_tokens.weight"][1] = 0.25
    save_file(tensors, file)
    told = began(other_text, tmp_path / "model", steps=3)
    assert "padding row zeroed: its norm was 1.41" in told.out
    assert padding_is_zero(other_text.checkpoint("new"))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--model.d_model", "64"), "--model.d_model is 64, but .* has 32: leave it out"),
        (("--data.vocab_size", "1000"), "--data.vocab_size is 1000, but .* has 400: leave it out"),
        (("--model.tied", "false"), "--model.tied is False, but .* has True"),
        (("--data.tokenizer", "characters"), "gives other ids than .*its own is kept"),
        (("--model.n_heads", "2"), None),  # as it is
    ],
)
def test_what_the_command_line_asks_must_be_what_the_weights_are(
    finished: tuple[Workshop, Outcome],
    other_text: Workshop,
    more: tuple[str, str],
    words: str | None,
) -> None:
    told = begin(other_text, finished[0].root / "done", *more)
    if words is None:
        assert told.status == 0, told.err
        return
    assert re.search(words, told.error_line())
    assert other_text.runs() == []


def test_settings_files_give_way_and_that_is_said(
    finished: tuple[Workshop, Outcome], other_text: Workshop, tmp_path: Path
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("model:\n  d_model: 128\ndata:\n  tokenizer: characters\n  vocab_size: 999\n")
    told = began(other_text, finished[0].root / "done", "--config", file)
    (note,) = (line for line in told.out.splitlines() if "settings files give way" in line)
    assert "model.d_model 128 -> 32" in note and "data.tokenizer characters" in note
    assert "data.vocab_size 999 -> 400" in note


@pytest.mark.usefixtures("timed_once")
def test_the_dial_keeps_the_shape(
    finished: tuple[Workshop, Outcome], other_text: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps are short, so that the text is used up within a second."""
    for module in (dial, sizing):
        monkeypatch.setattr(module, "USEFUL_PASSES", 1.0)
    monkeypatch.setattr(dial, "BEGAN", time.perf_counter())
    source = finished[0].root / "done"
    told = run(
        *("fit", "--name", "new", *other_text.where, "--init_from", source, "--minutes", "1"),
        *("--model.compile", "false", "--samples.max_new_tokens", "0"),
        *("--data.max_length", "32", "--trainer.accelerator", "cpu", "--pages.pictures", "false"),
    )
    assert told.status == 0, told.out + told.err
    kept = told.line("kept")
    assert "--model.d_model 32 --model.n_layers 2 --model.n_heads 2" in kept
    assert settings(other_text)["model"]["d_model"] == 32


@pytest.mark.parametrize("name", ["best", "last", ""])
def test_best_and_last_would_be_of_the_run_that_begins(other_text: Workshop, name: str) -> None:
    assert (
        "is no path: give a checkpoint"
        in begin(other_text, Path(), f"--init_from={name}").error_line()
    )
    assert other_text.runs() == []


@pytest.mark.parametrize("there", ["nothing", "empty", "file"])
def test_a_path_with_nothing_usable_is_refused(
    other_text: Workshop, tmp_path: Path, there: str
) -> None:
    path = tmp_path / "x"
    if there == "empty":
        path.mkdir()
    if there == "file":
        path.write_text("no weights")
    told = begin(other_text, path).error_line()
    assert str(path) in told and "best" not in told  # which are not taken here
    assert other_text.runs() == []
