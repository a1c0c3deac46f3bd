"""`fit --minutes`: one dial that sizes a run, and is gone when the run begins.

The small corpus is used up long before a minute is over, so that these runs take seconds.
"""

import os
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from workshop import Outcome, Workshop, assert_same_weights, load, run, run_apart

from lightning_embed.commands import dial, minutes
from lightning_embed.commands.measuring import Beside, process_count
from lightning_embed.commands.minutes import HANDED_ON
from lightning_embed.commands.options import Options, named_in
from lightning_embed.data.datamodule import TextDataModule
from lightning_embed.errors import UserError
from lightning_embed.training import sizing

QUIET = (
    *("--samples.max_new_tokens", "3", "--trainer.precision", "32-true"),
    *("--trainer.accelerator", "cpu", "--data.max_length", "32", "--data.vocab_size", "400"),
    *("--model.compile", "false", "--pages.pictures", "false"),
)
MINUTE = ("--minutes", "1")
BEGUN = "lightning_embed.commands.dial.BEGAN"


@pytest.fixture(autouse=True)
def begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program starts with the test, and a text is used up after one pass, for short runs."""
    monkeypatch.setattr(BEGUN, time.perf_counter())
    for module in (dial, sizing):
        monkeypatch.setattr(module, "USEFUL_PASSES", 1.0)


def fit(workshop: Workshop, name: str, *more: str | Path) -> Outcome:
    told = run("fit", "--name", name, *QUIET, *workshop.where, *more)
    assert told.status == 0, told.out + told.err
    return told


def refused(workshop: Workshop, *more: str | Path) -> str:
    """Why, in one line; and no folder is left."""
    told = run("fit", *QUIET, *workshop.where, *more)
    assert workshop.runs() == []
    return told.error_line()


def settings(workshop: Workshop, name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((workshop.root / name / "config.yaml").read_text())
    return found


# -- exactness -----------------------------------------------------------------------------------


def test_the_settings_of_a_run_train_the_same_without_the_dial(workshop: Workshop) -> None:
    told = fit(workshop, "sized", *MINUTE)
    assert "minutes" not in settings(workshop, "sized")
    config = workshop.root / "sized" / "config.yaml"
    scored = run("validate", "--config", config, "--ckpt_path", "best")  # which has no --minutes
    assert scored.status == 0, scored.err
    fit(workshop, "again", "--config", workshop.root / "sized" / "config.yaml")
    line = told.line("sized").split()
    fit(workshop, "flags", *line)
    for name in ("again", "flags"):
        for kind in ("last", "best"):
            one, two = workshop.checkpoint("sized", kind), workshop.checkpoint(name, kind)
            assert_same_weights(one, two)
    assert HANDED_ON not in os.environ


@pytest.mark.slow
def test_what_was_compiled_to_measure_serves_the_run(workshop: Workshop) -> None:
    """And a process that compiles for itself trains the same."""
    told = fit(workshop, "sized", *MINUTE, "--model.compile", "true")
    took = re.match(r"(\d+) s", told.line("compile  took"))
    assert took and int(took[1]) < 5
    config = ("--config", workshop.root / "sized" / "config.yaml")
    apart = run_apart("fit", "--name", "again", *config, seconds=300)
    assert apart.status == 0, apart.out + apart.err
    assert_same_weights(workshop.checkpoint("sized"), workshop.checkpoint("again"))


def test_measuring_leaves_no_trace(workshop: Workshop) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state(), torch.get_num_threads()
    with dial.without_trace("warn", threads=before[1] + 1):
        assert torch.get_num_threads() == before[1] + 1
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]
    assert not torch.are_deterministic_algorithms_enabled()


# -- what the user sets --------------------------------------------------------------------------


@pytest.mark.usefixtures("timed_once")
def test_what_is_set_is_kept_and_the_rest_fitted(workshop: Workshop, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model:\n  n_layers: 4\n  lr: 0.004\n")  # four is the default, too
    told = fit(workshop, "kept", *MINUTE, "--config", file, "--model.d_model=96")
    saved = settings(workshop, "kept")
    assert (saved["model"]["d_model"], saved["model"]["n_layers"]) == (96, 4)
    assert saved["model"]["n_heads"] == 3 and saved["model"]["lr"] == 0.004
    assert told.line("kept") == (
        "--model.d_model 96 --model.n_layers 4 --model.compile false --model.lr 0.004"
    )
    assert "d_model" not in told.line("sized") and "--trainer.max_steps" in told.line("sized")


@pytest.mark.usefixtures("timed_once")
@pytest.mark.parametrize(("flag", "value", "heads"), [("d_model", 100, 2), ("n_heads", 3, 3)])
def test_a_width_or_heads_that_the_defaults_do_not_suit(
    workshop: Workshop, flag: str, value: int, heads: int
) -> None:
    small = ("--model.n_layers", "1", "--trainer.max_steps", "3")
    fit(workshop, "odd", *MINUTE, f"--model.{flag}", str(value), *small)
    found = settings(workshop, "odd")["model"]
    assert found[flag] == value and found["n_heads"] == heads


@pytest.mark.parametrize("flag", ["--model.n_heads", "--model.n_layers", "--model.d_model"])
@pytest.mark.parametrize("value", ["0", "-1"])
def test_sizes_that_cannot_be(workshop: Workshop, flag: str, value: str) -> None:
    assert f"{flag} must be at least 1, not {value}" in refused(workshop, *MINUTE, flag, value)


@pytest.mark.usefixtures("timed_once")
def test_rows_and_a_time_that_are_set(workshop: Workshop) -> None:
    limits = ("--data.rows_per_batch", "3", "--trainer.max_time", "00:00:10:00")
    told = fit(workshop, "rows", *MINUTE, "--model.d_model", "32", *limits)
    assert settings(workshop, "rows")["data"]["tokens_per_batch"] == 3 * 32
    assert "--data.rows_per_batch 3" in told.line("kept")
    assert "--trainer.max_time 00:00:10:00" in told.line("kept")


@pytest.mark.usefixtures("timed_once")
def test_nothing_is_chosen_that_has_no_effect(workshop: Workshop) -> None:
    without = ("--trainer.limit_val_batches", "0", "--model.optimizer", "adamw")
    small = ("--model.d_model", "32", "--trainer.max_steps", "3")
    told = fit(workshop, "less", *MINUTE, *small, *without)
    assert not re.search("muon|interval|eval_tokens", told.line("sized"))
    again = run("fit", "--name", "again", "--config", workshop.root / "less" / "config.yaml")
    assert again.status == 0 and "has no effect" not in again.out, again.out


@pytest.mark.usefixtures("timed_once")
def test_steps_that_are_set_win(workshop: Workshop) -> None:
    told = fit(workshop, "steps", *MINUTE, "--trainer.max_steps", "12", "--model.d_model", "32")
    assert "--trainer.max_steps 12 wins" in told.line("note")
    assert load(workshop.checkpoint("steps"))["global_step"] == 12


@pytest.mark.usefixtures("timed_once")
def test_epochs_that_are_set_win(workshop: Workshop) -> None:
    told = fit(workshop, "epochs", *MINUTE, "--trainer.max_epochs", "1", "--model.d_model", "32")
    assert "--trainer.max_epochs 1 wins: the run ends after about" in told.line("note")
    assert settings(workshop, "epochs")["trainer"]["max_epochs"] == 1
    found = load(workshop.checkpoint("epochs"))
    assert found["global_step"] == settings(workshop, "epochs")["trainer"]["max_steps"]


@pytest.mark.parametrize("final", [None, 200])
def test_the_last_evaluation_is_cut_where_it_is_long_unless_the_user_has(
    corpus: str, cache: Path, final: int | None
) -> None:
    data = TextDataModule(
        corpus, cache_dir=str(cache), max_length=32, tokens_per_batch=64, final_eval_tokens=final
    )
    n_batches = len(data.eval_dataloader())
    given = {"data.final_eval_tokens": final, "data.quick_eval_tokens": 10}
    options = Options(given | {"trainer.limit_val_batches": 1.0}, [], lambda name: None)
    run: Any = SimpleNamespace(options=options, data=data, seconds=60.0 * n_batches)
    count, aside = dial.Dial.fit_evaluations(run, Beside(batch=60.0, sample=0.0, save=0.0))
    whole = 60.0 * n_batches * (0.1 if final is None else 1)
    assert count == 1 and aside == pytest.approx(60.0 + whole)
    chosen = options.chosen.get("data.final_eval_tokens")
    assert (chosen is None) == (final is not None)
    data.final_eval_tokens = chosen or final
    seen = data.eval_dataloader().rows.windows.targets.sum()
    assert 0 < seen <= max(32, data.final_eval_tokens)  # one window at least


def test_options_named_in_files_and_on_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("model:\n  lr: 1\nname: x\n")
    args = ["--config", str(file), "--data.files+=b", "--trainer.max_steps", "3"]
    expected = {"model.lr", "name", "data.files", "trainer.max_steps"}
    assert named_in(args) == expected | {"model", "data", "trainer"}
    assert named_in([f"-c={file}"]) == {"model", "model.lr", "name"}


# -- resuming ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("timed_once")
def test_a_resume_keeps_its_plan_and_has_a_limit(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(workshop, "long", *MINUTE, "--trainer.max_steps", "6", "--model.d_model", "32")
    config = workshop.root / "long" / "config.yaml"
    more = ("--trainer.max_steps", "100000", "--model.schedule_steps", "100000")
    where = ("--config", config, "--ckpt_path", workshop.root / "long")
    monkeypatch.setattr(BEGUN, time.perf_counter())
    halt = "--trainer.callbacks+=workshop.HaltAfter"  # for the limit would be waited
    told = run("fit", *where, *more, *MINUTE, halt)
    assert told.status == 0, told.out + told.err
    limit = re.search(r"--trainer.max_time 00:00:00:(\d\d)", told.line("note"))
    assert limit and int(limit[1]) < 60
    assert "sized" not in told.out and "max_time" in told.out
    reached = load(workshop.checkpoint("long"))["global_step"]
    assert reached > 6
    again = ("--config", workshop.root / "long" / "config-resume-1.yaml", *where[2:])
    monkeypatch.setattr(BEGUN, time.perf_counter())
    told = run("fit", *again, *MINUTE)
    assert told.status == 0, told.out + told.err
    assert f"of which are over, in place of 00:00:00:{limit[1]}" in told.line("note")
    assert load(workshop.checkpoint("long"))["global_step"] > reached


# -- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["0", "-1", "1e9"])
def test_minutes_that_cannot_be(workshop: Workshop, number: str) -> None:
    assert f"--minutes must be above 0 and at most 525600.0, not {float(number)}" in refused(
        workshop, f"--minutes={number}"
    )


@pytest.mark.parametrize("word", ["soon", "nan", "inf"])
def test_minutes_that_are_no_number(workshop: Workshop, word: str) -> None:
    assert refused(workshop, "--minutes", word) == f"--minutes cannot be {word}: give float, null"


def test_too_few_minutes(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    told = refused(workshop, "--minutes", "0.01")
    assert told.startswith("--minutes 0.01 is ") and re.search(r"\d:\d\d", told)


@pytest.mark.parametrize("spent_in", ["starting", "preparing the text"])
def test_minutes_that_are_over_before_a_step(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, spent_in: str
) -> None:
    def an_hour(*_: Any) -> None:
        monkeypatch.setattr(BEGUN, time.perf_counter() - 3600)

    monkeypatch.setattr(dial, "xz_bits_per_byte", an_hour)
    if spent_in == "starting":
        an_hour()
    told = refused(workshop, *MINUTE)
    assert told.startswith(f"--minutes 1 is over: {spent_in} took 1:00:")


def test_less_than_preparing_takes(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(dial, "preparation_seconds", lambda *_, **__: 700.0)
    told = refused(workshop, *MINUTE, "--data.cache_dir", tmp_path / "cache")
    assert told.startswith("--minutes 1 is less than preparing the text takes, about 11:40 on")


def test_a_text_too_small_for_any_model(workshop: Workshop, tmp_path: Path) -> None:
    small = tmp_path / "small.txt"
    small.write_text("A word or two. " * 20)
    told = refused(workshop, *MINUTE, "--data.files", "null", "--data.files", small)
    assert told.startswith("the text has 270 bytes to train on and 30 held out")
    assert "give 1,000 bytes" in told


@pytest.mark.slow
def test_a_small_text_ends_earlier_and_says_so(workshop: Workshop, tmp_path: Path) -> None:
    small = tmp_path / "small.txt"
    small.write_text("".join(f"Line {n} of {n * n} lines. " for n in range(130)))
    told = fit(workshop, "small", *MINUTE, "--data.files", "null", "--data.files", small)
    assert re.search(r"passes over .* the run ends after about 0:\d\d", told.line("note"))


def test_a_model_that_does_not_fit(workshop: Workshop) -> None:
    told = refused(workshop, *MINUTE, "--model.d_model", "1000000", "--model.n_heads", "10000")
    assert "--model.d_model" in told and "GB to train" in told and "free" in told


# -- several processes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("devices", "number"), [("auto", 1), (2, 2), ("2", 2), ("0,1,2", 3), ([0, 1], 2), (1, 1)]
)
def test_processes_of_a_run(devices: Any, number: int) -> None:
    class Trainer:
        accelerator = "cpu"

    trainer = Trainer()
    trainer.devices = devices  # type: ignore[attr-defined]
    assert process_count(trainer) == number


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "RANK": "1"}, "torchrun"),
        ({"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0"}, "srun"),
        ({"LOCAL_RANK": "1"}, "LOCAL_RANK"),
    ],
)
def test_processes_that_start_by_themselves(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], name: str
) -> None:
    class Trainer:
        num_nodes = 1

    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=f"{name}.* starts several: .* config.yaml to all"):
        minutes.refuse_launchers(Trainer())


def test_a_device_that_is_not_timed() -> None:
    config = SimpleNamespace(minutes=1.0, trainer=SimpleNamespace(accelerator="mps"))
    with pytest.raises(UserError, match=r"not on mps: give --trainer\.max_steps"):
        minutes.set_minutes(config, [], lambda name: None, lambda: pytest.fail("not to be built"))


def test_several_hosts(workshop: Workshop) -> None:
    told = refused(workshop, *MINUTE, "--trainer.num_nodes", "2", "--trainer.strategy", "ddp")
    assert "--trainer.num_nodes 2 starts several" in told


@pytest.mark.slow
def test_two_processes_train_what_the_first_chose(workshop: Workshop) -> None:
    options = (
        *QUIET,
        *workshop.where,
        *MINUTE,
        "--model.optimizer",
        "adamw",
        "--trainer.max_epochs",
        "1",
    )
    ddp = ("--trainer.strategy", "ddp", "--trainer.devices", "2")
    told = run_apart("fit", "--name", "two", *options, *ddp)
    assert told.status == 0 and told.err == "", told.out + told.err
    assert told.out.count("sized ") == 1 and "2 processes" in told.line("numbers")
    found = load(workshop.checkpoint("two"))
    assert found["global_step"] == settings(workshop, "two")["trainer"]["max_steps"]
