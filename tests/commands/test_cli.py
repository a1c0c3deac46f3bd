"""Mistakes at the command line: one line that says what to change, and nothing left behind."""

import json
import signal
import time
from pathlib import Path

import pytest
from workshop import Workshop, run, run_apart, write_corpus


def mistake(workshop: Workshop, *arguments: str | Path, command: str = "fit") -> str:
    """The one line on standard error; no run folder and no half-prepared data may be left."""
    told = workshop.run(command, *arguments)
    assert workshop.runs() == []
    assert not [path for path in workshop.cache.iterdir() if path.name.startswith(".")]
    return told.error_line()


# -- text ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nothing.txt", "none-*.md"])
def test_files_that_are_not_there(workshop: Workshop, tmp_path: Path, name: str) -> None:
    line = mistake(workshop, "--data.files", tmp_path / name)
    assert name in line and "--data.files" in line


def test_an_empty_file(workshop: Workshop, tmp_path: Path) -> None:
    path = tmp_path / "empty.txt"
    path.touch()
    assert "--data.files" in mistake(workshop, "--data.files", path)


def test_a_file_that_is_not_utf8(workshop: Workshop, tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"plain text, then \xe9t\xe9")
    line = mistake(workshop, "--data.files", path)
    assert str(path) in line and "byte 17" in line


def test_a_jsonl_line_that_does_not_parse(workshop: Workshop, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "one"}\n{"text": \n', encoding="utf-8")
    assert f"{path}:2" in mistake(workshop, "--data.files", path)


def test_a_column_that_is_missing(workshop: Workshop, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"body": "one", "id": 1}) + "\n", encoding="utf-8")
    line = mistake(workshop, "--data.files", path)
    assert "'text'" in line and "'body', 'id'" in line and "--data.text_column" in line


def test_a_text_too_short_to_split(workshop: Workshop, tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("a", encoding="utf-8")
    assert "too small" in mistake(workshop, "--data.files", path)


def test_one_file_may_be_given_without_brackets_and_several_with(
    workshop: Workshop, tmp_path: Path
) -> None:
    write_corpus(tmp_path / "more", 3)
    one, two = (tmp_path / "more" / name for name in ("doc00.txt", "doc01.txt"))
    told = workshop.fit("one", "--data.files", one, steps=1)
    assert "doc00.txt" in told.line("corpus")
    told = workshop.fit("two", "--data.files", f"[{one}, {two}]", steps=1)
    assert "2 files" in told.line("corpus")


def test_a_glob_that_yaml_would_take_for_an_alias(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_corpus(tmp_path / "here", 3)
    monkeypatch.chdir(tmp_path / "here")
    assert "3 files" in workshop.fit("run", "--data.files", "*.txt", steps=1).line("corpus")


def test_without_a_network_a_data_set_ends_at_once(workshop: Workshop) -> None:
    began = time.monotonic()
    line = mistake(workshop, "--data.files", "null", "--data.hub", "no-one/nothing")
    assert time.monotonic() - began < 6
    assert "HF_HUB_OFFLINE" in line and "--data.files" in line


def test_files_and_hub_together(workshop: Workshop) -> None:
    line = mistake(workshop, "--data.hub", "no-one/nothing")
    assert "--data.files" in line and "--data.hub" in line


# -- settings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [
        ("--data.max_length", "1", "max_length must be at least 2"),
        ("--data.tokens_per_batch", "16", "--data.tokens_per_batch"),
        ("--data.rows_per_batch", "0", "--data.rows_per_batch"),
        ("--data.tokenizer", "nowhere/tokenizer.json", "nowhere/tokenizer.json"),
        ("--data.max_length", "many", "data.max_length"),
        ("--data.eval_overlap", "32", "--data.eval_overlap"),
        ("--model.n_layers", "1000000", "--model.n_layers"),
        ("--model.n_layers", "0", "--model.n_layers"),
        ("--model.n_heads", "0", "n_heads"),
        ("--model.n_heads", "3", "n_heads"),
        ("--model.n_heads", "2.5", "model.n_heads"),
        ("--model.d_model", "0", "d_model"),
        ("--model.d_model", "-32", "d_model"),
        ("--model.vocab_size", "17", "--model.vocab_size"),
        ("--model.init", "glorot", "xavier_uniform"),
        ("--model.dropout", "1.5", "dropout"),
        ("--model.optimizer", "sgd", "muon"),
        ("--model.lr", "fast", "model.lr"),
        ("--model.schedule", "linear", "cosine"),
        ("--model.d_modle", "3", "did you mean model.d_model?"),
        ("--data.flies", "x.txt", "did you mean data.files?"),
        ("--ckpt_path", "nowhere.ckpt", "nowhere.ckpt"),
        ("--ckpt_path", "best", "no checkpoint"),
        ("--ckpt_path", "last", "no checkpoint"),
        ("--config", "nowhere.yaml", "nowhere.yaml"),
        ("--trainer.precision", "16-true", "16-true"),
        ("--trainer.precision", "17-mixed", "17-mixed"),
        ("--trainer.max_steps", "ten", "trainer.max_steps"),
        ("--trainer.accelerator", "gpux", "gpux"),
        ("--trainer.devices", "0", "devices"),
        ("--trainer.accumulate_grad_batches", "0", "accumulate"),
        ("--trainer.max_steps", "0", "max_steps 0 trains nothing"),
        ("--trainer.max_epochs", "0", "max_epochs 0 trains nothing"),
        ("--trainer.limit_train_batches", "0", "limit_train_batches 0 trains nothing"),
        ("--trainer.limit_train_batches", "0.0", "limit_train_batches 0 trains nothing"),
        ("--trainer.max_epochs", "-1", "--trainer.max_steps"),
        ("--trainer.val_check_interval", "0", "--trainer.limit_val_batches 0"),
        ("--trainer.val_check_interval", "00:00:01:00", "is a time"),
        ("--trainer.check_val_every_n_epoch", "0", "--trainer.limit_val_batches 0"),
        ("--trainer.fast_dev_run", "true", "--trainer.max_steps 1"),
        ("--trainer.overfit_batches", "2", "--data.files"),
        ("--trainer.enable_checkpointing", "false", "--checkpoints.every_n_steps 0"),
        ("--trainer.strategy", "fsdp", "configs/fsdp.yaml"),
        ("--trainer.strategy", "deepspeed_stage_2", "configs/fsdp.yaml"),
        ("--samples.prompts", "[]", "--samples.max_new_tokens 0"),
        ("--data.widths", "[]", "--data.widths"),
        ("--seed_everything", "x", "seed_everything"),
        ("--seed_everything", "true", "--seed_everything true: give a number"),
        ("--seed_everything", "false", "--seed_everything false: give a number"),
        ("--name", "a/b", "--name"),
        ("--name", "../up", "--name"),
    ],
)
def test_a_setting_that_cannot_be(workshop: Workshop, option: str, value: str, wanted: str) -> None:
    began = time.monotonic()
    line = mistake(workshop, option, value)
    assert time.monotonic() - began < 5
    assert wanted in line, line
    assert len(line) < 500, line


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("model:\n  d_modle: 3\n", "did you mean model.d_model?"),
        ("modle:\n  d_model: 3\n", "did you mean model.d_model?"),
        ("data:\n  maxlength: 3\n", "did you mean data.max_length?"),
        ("trainer:\n  max_epoch: 3\n", "did you mean trainer.max_epochs?"),
        ("model:\n  d_model: wide\n", "model.d_model"),
        ("model: 3\n", "model"),
        ("model: [1\n", "mine.yaml"),
        ("just words\n", "mine.yaml"),
    ],
)
def test_a_mistake_in_a_file_of_settings(
    workshop: Workshop, tmp_path: Path, text: str, wanted: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    line = mistake(workshop, "--config", path)
    assert wanted in line, line


def test_an_empty_file_of_settings_changes_nothing_or_is_refused(
    workshop: Workshop, tmp_path: Path
) -> None:
    path = tmp_path / "empty.yaml"
    path.touch()
    told = workshop.run("fit", "--config", path, "--trainer.max_steps", "1")
    if told.status:
        assert told.error_line()
    else:
        assert workshop.runs() == ["empty"]


# -- commands --------------------------------------------------------------------------------


@pytest.mark.parametrize(("command", "near"), [("fti", "fit"), ("generat", "generate")])
def test_an_unknown_command_names_the_nearest(command: str, near: str) -> None:
    told = run(command)
    assert f"did you mean {near}?" in told.error_line()


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("generate",), "checkpoint"),
        (("generate", "--checkpoint", "nowhere.ckpt"), "nowhere.ckpt"),
        (("generate", "--checkpint", "x"), "did you mean checkpoint?"),
        (("generate", "--checkpoint", "x", "--samples", "0"), "--samples"),
        (("generate", "--checkpoint", "x", "--top_p", "0"), "--top_p"),
        (("tokenizer", "--show", "nowhere.json"), "nowhere.json"),
        (("tokenizer", "--adopt", "nowhere.json"), "nowhere.json"),
        (("tokenizer", "--adopt", "x", "--show", "y"), "--adopt"),
        (("tokenizer", "--vocab_size", "many"), "vocab_size"),
        (("tokenizer", "--files", "nowhere.txt"), "nowhere.txt"),
    ],
)
def test_the_other_commands_are_as_brief(
    arguments: tuple[str, ...],
    wanted: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    line = run(*arguments).error_line()
    assert wanted in line, line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_evaluating_what_is_not_there(workshop: Workshop, command: str) -> None:
    assert "no checkpoint" in mistake(workshop, command=command)


def test_help_needs_no_torch_and_lists_every_command() -> None:
    from lightning_embed.cli import COMMANDS

    began = time.monotonic()
    told = run_apart("--help")
    assert time.monotonic() - began < 3
    assert told.status == 0
    for command in COMMANDS:
        assert f"  {command} " in told.out


def test_a_mistake_ends_the_process_with_a_status_and_one_line(tmp_path: Path) -> None:
    told = run_apart(
        *("fit", "--data.files", tmp_path / "no.txt"),
        *("--trainer.default_root_dir", tmp_path / "runs"),
    )
    assert told.status == 1
    assert "no.txt" in told.error_line()
    assert not (tmp_path / "runs").exists()


def test_a_tokenizer_is_trained_shown_and_used(workshop: Workshop, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    made = run(
        *("tokenizer", "--files", workshop.files, "--vocab_size", "300", "--output", path),
        *("--text", "abc <pad>"),
    )
    assert made.status == 0, made.err
    assert "<pad>=1" in made.line("ids")
    assert run("tokenizer", "--show", path).line("ids") == made.line("ids")
    again = run("tokenizer", "--files", workshop.files, "--output", path)
    assert "exists already" in again.error_line()
    told = workshop.fit("run", "--data.tokenizer", path, "--data.vocab_size", "null", steps=2)
    assert "vocabulary 300" in told.line("tokens")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_while_text_is_prepared_ends_the_program_tidied_up(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def told(*args: object, **kwargs: object) -> None:
        signal.raise_signal(signal.Signals[name])

    before = signal.getsignal(signal.Signals[name])
    monkeypatch.setattr("lightning_embed.data.prepared._encoded", told)
    cache = tmp_path / "cache"
    found = workshop.run("fit", "--data.cache_dir", cache)
    assert found.status == 128 + signal.Signals[name]
    assert found.err == "" and list(cache.iterdir()) == []
    assert signal.getsignal(signal.Signals[name]) == before
