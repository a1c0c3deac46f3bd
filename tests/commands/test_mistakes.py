"""Mistakes at the command line: one line that says what to change, and nothing left behind."""

from pathlib import Path

import pytest
from lightning.pytorch import callbacks
from workshop import Workshop, run

from lightning_embed.commands.fit import EmbedCLI
from lightning_embed.commands.monitors import require_monitors
from lightning_embed.errors import UserError


def mistake(workshop: Workshop, *arguments: str | Path, command: str = "fit") -> str:
    """The one line on standard error; no run folder and no half-prepared data may be left."""
    told = workshop.run(command, *arguments)
    assert workshop.runs() == []
    assert not [path for path in workshop.cache.iterdir() if path.name.startswith(".")]
    return told.error_line()


# -- text ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("nothing.txt", None, ["nothing.txt", "--data.files"]),
        ("none-*.md", None, ["none-*.md", "--data.files"]),
        ("empty.txt", b"", ["--data.files"]),
        ("short.txt", b"a", ["too small"]),
        ("latin.txt", b"plain text, then \xe9t\xe9", ["latin.txt", "byte 17"]),
        ("rows.jsonl", b'{"text": "one"}\n{"text": \n', ["rows.jsonl:2"]),
        (
            "rows.jsonl",
            b'{"body": "", "id": 1}\n',
            ["'text'", "'body', 'id'", "--data.text_column"],
        ),
    ],
)
def test_text_that_cannot_be_read(
    workshop: Workshop, tmp_path: Path, name: str, content: bytes | None, wanted: list[str]
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    line = mistake(workshop, "--data.files", tmp_path / name)
    assert [words for words in wanted if words not in line] == []


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
        ("--model.matrix_lr", "0.1", "it is model.muon_lr now"),
        ("--model.rope_base", "500", "it is model.rope_theta now"),
        ("--model.decay_share", "0.1", "it is model.decay_fraction now"),
        ("--model.final_share", "0.1", "it is model.final_fraction now"),
        ("--model.lr", "-1", "--model.lr must be at least 0, not -1.0"),
        ("--model.muon_lr", "-0.1", "--model.muon_lr must be at least 0"),
        ("--model.weight_decay", "-1", "--model.weight_decay must be at least 0"),
        ("--model.betas", "[0.9, 1.0]", "--model.betas must be at least 0 and below 1, not 1.0"),
        ("--model.betas", "[-0.1, 0.9]", "--model.betas must be at least 0"),
        ("--model.warmup_steps", "-1", "--model.warmup_steps must be at least 0"),
        ("--model.muon_turns", "17", "--model.muon_turns must be at least 1 and at most 16"),
        ("--model.schedule_steps", "0", "--model.schedule_steps must be at least 1"),
        ("--model.decay_fraction", "2", "--model.decay_fraction must be at least 0 and at most 1"),
        ("--model.final_fraction", "-0.5", "--model.final_fraction must be at least 0"),
        ("--model.max_length", "0", "--model.max_length must be at least 2"),
        ("--model.d_ff", "0", "--model.d_ff must be at least 1"),
        ("--model.n_kv_heads", "0", "--model.n_kv_heads"),
        ("--model.dropout", "1.0", "--model.dropout must be at least 0 and below 1"),
        ("--model.norm_eps", "0", "--model.norm_eps must be above 0"),
        ("--model.rope_theta", "0", "--model.rope_theta must be above 0"),
        ("--data.quick_eval_tokens", "0", "--data.quick_eval_tokens must be at least 1"),
        ("--data.num_workers", "-1", "--data.num_workers must be at least 0"),
        ("--seed_everything", "-1", "--seed_everything must be at least 0 and at most 4294967295"),
        ("--seed_everything", "4294967296", "--seed_everything must be"),
        ("--samples.temperature", "-1", "--samples.temperature must be at least 0"),
        ("--samples.max_new_tokens", "-1", "--samples.max_new_tokens must be at least 0"),
        ("--padding_guard.every_n_steps", "0", "--padding_guard.every_n_steps must be at least 1"),
        ("--loss_watch.every_n_steps", "0", "--loss_watch.every_n_steps must be at least 1"),
        ("--checkpoints.every_n_steps", "-1", "--checkpoints.every_n_steps must be at least 0"),
        ("--checkpoints.every_n_minutes", "-1", "--checkpoints.every_n_minutes must be at least 0"),
        ("--checkpoints.keep_last", "0", "--checkpoints.keep_last must be at least 1"),
        ("--early_stopping.patience", "-1", "--early_stopping.patience must be at least 0"),
        ("--early_stopping.monitor", "val_loss", "val/loss, val/perplexity, val/accuracy, val/bi"),
        ("--early_stopping.monitor", "train/loss", "is no metric of the validation: there are"),
        ("--early_stopping.monitor", "val/accuracy", "give --early_stopping.mode max"),
        ("--checkpoints.monitor", "val/los", "val/los is no metric of the validation: there are"),
        ("--checkpoints.monitor", "val/accuracy", "give --checkpoints.mode max"),
        ("--trainer.gradient_clip_val", "-1", "--trainer.gradient_clip_val must be at least 0"),
        ("--trainer.log_every_n_steps", "-1", "--trainer.log_every_n_steps must be at least 1"),
        ("--trainer.check_val_every_n_epoch", "-1", "--trainer.check_val_every_n_epoch must be"),
        ("--trainer.num_sanity_val_steps", "-2", "--trainer.num_sanity_val_steps must be at least"),
        ("--ckpt_path", "nowhere.ckpt", "nowhere.ckpt"),
        ("--ckpt_path", "best", "no checkpoint"),
        ("--ckpt_path", "last", "no checkpoint"),
        ("--config", "nowhere.yaml", "nowhere.yaml"),
        ("--trainer.precision", "16-true", "bf16-mixed"),
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
        ("--trainer.strategy", "ddpp", "--trainer.strategy ddpp is not known (did you mean ddp?)"),
        ("--trainer.strategy", "fsdp", "--config fsdp"),
        ("--trainer.strategy", "deepspeed_stage_2", "--config fsdp"),
        ("--samples.prompts", "[]", "--samples.max_new_tokens 0"),
        ("--data.widths", "[]", "--data.widths"),
        ("--seed_everything", "x", "seed_everything"),
        ("--seed_everything", "true", "--seed_everything true: give a number"),
        ("--seed_everything", "false", "--seed_everything false: give a number"),
        ("--name", "a/b", "--name"),
        ("--name", "../up", "--name"),
    ],
)
def test_a_setting_that_cannot_be(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, option: str, value: str, wanted: str
) -> None:
    def begun(*args: object, **kwargs: object) -> None:
        raise AssertionError("the run began")  # a mistake is told before

    monkeypatch.setattr(EmbedCLI, "fit", begun)
    line = mistake(workshop, option, value)
    assert wanted in line, line
    assert len(line) < 500, line


@pytest.mark.parametrize("callback", ["ModelCheckpoint", "EarlyStopping"])
def test_a_users_own_callback_monitors_what_there_is(workshop: Workshop, callback: str) -> None:
    require_monitors([getattr(callbacks, callback)(monitor="val/bits_per_byte")])
    with pytest.raises(UserError, match="monitor val_loss is no metric of the validation"):
        require_monitors([getattr(callbacks, callback)(monitor="val_loss")])
    require_monitors([Metric(), getattr(callbacks, callback)(monitor="mine")])  # who knows


class Metric(callbacks.Callback):
    """Somebody's own, which may log a metric."""


def test_nothing_is_prepared_for_a_setting_that_cannot_be(
    workshop: Workshop, tmp_path: Path
) -> None:
    for option, value in (("--model.d_model", "0"), ("--early_stopping.monitor", "val_loss")):
        line = mistake(workshop, option, value, "--data.cache_dir", tmp_path / "cache")
        assert option in line
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "holds no settings"),
        ("# data:\n", "holds no settings"),
        ("trainer:\n", "trainer is empty, but needs settings below it"),
        ("model:\n  d_modle: 3\n", "did you mean model.d_model?"),
        ("model:\n  matrix_lr: 3\n", "it is model.muon_lr now"),
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


# -- commands --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("generate",), "checkpoint"),
        (("generate", "--checkpoint", "nowhere.ckpt"), "nowhere.ckpt"),
        (("generate", "--checkpint", "x"), "did you mean checkpoint?"),
        (("generate", "--checkpoint", "x", "--samples", "0"), "--samples"),
        (("generate", "--checkpoint", "x", "--max_new_tokens", "0"), "--max_new_tokens must be"),
        (("generate", "--checkpoint", "x", "--temperature", "-0.1"), "--temperature"),
        (("generate", "--checkpoint", "x", "--top_k", "-1"), "--top_k"),
        (("generate", "--checkpoint", "x", "--top_p", "0"), "--top_p must be above 0"),
        (("generate", "--checkpoint", "x", "--top_p", "1.5"), "--top_p"),
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
