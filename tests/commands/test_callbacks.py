"""A user's callbacks, loggers and plugins beside ours, in every form that LightningCLI takes."""

import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from workshop import Workshop, assert_same_weights, load

from lightning_embed.commands.fit import EmbedCLI
from lightning_embed.commands.lightning_errors import refusals_in_one_line
from lightning_embed.errors import UserError
from lightning_embed.recording.curves import Curves


@pytest.fixture
def built(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the trainer that arguments ask for, without training."""
    trainers = []
    monkeypatch.setattr(EmbedCLI, "fit", lambda self, **kwargs: trainers.append(self.trainer))

    def build(*arguments: str | Path) -> L.Trainer:
        told = workshop.run("fit", *arguments)
        assert told.status == 0, told.err
        return trainers.pop()

    return build


MONITOR = {"class_path": "LearningRateMonitor", "init_args": {"logging_interval": "step"}}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--trainer.callbacks", "LearningRateMonitor", "--trainer.callbacks.logging_interval=step"),
        ("--trainer.callbacks+=LearningRateMonitor", "--trainer.callbacks.logging_interval=step"),
        (
            *("--trainer.callbacks.class_path", "lightning.pytorch.callbacks.LearningRateMonitor"),
            *("--trainer.callbacks.init_args.logging_interval", "step"),
        ),
        ("--trainer.callbacks", json.dumps(MONITOR)),
        ("--trainer.callbacks", json.dumps([MONITOR])),
        {"callbacks": MONITOR},
        {"callbacks": [MONITOR]},
        {"callbacks": [MONITOR, "Timer"]},
    ],
)
def test_a_callback_in_every_form(built: Any, tmp_path: Path, arguments: Any) -> None:
    if isinstance(arguments, dict):
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"trainer": arguments}))
        arguments = ("--config", tmp_path / "mine.yaml")
    callbacks = built(*arguments).callbacks
    (found,) = [each for each in callbacks if isinstance(each, LearningRateMonitor)]
    assert found.logging_interval == "step"


def test_a_name_alone_is_a_callback(built: Any) -> None:
    callbacks = built("--trainer.callbacks", "LearningRateMonitor").callbacks
    assert any(isinstance(each, LearningRateMonitor) for each in callbacks)


@pytest.mark.parametrize(
    ("arguments", "kinds"),
    [
        ((), [Curves]),
        (("--trainer.logger", "false"), []),
        (("--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "{}"), [CSVLogger]),
        (("--trainer.logger+=CSVLogger", "--trainer.logger.save_dir", "{}"), [CSVLogger]),
    ],
)
def test_one_logger_or_none(
    built: Any, tmp_path: Path, arguments: tuple[str, ...], kinds: list[type]
) -> None:
    loggers = built(*(word.format(tmp_path) for word in arguments)).loggers
    assert [type(each) for each in loggers] == kinds


def test_paths_in_a_callback_are_those_of_a_shell(
    built: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINE", str(tmp_path))
    for form in ("--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks=ModelCheckpoint"):
        trainer = built(form, "--trainer.callbacks.dirpath", "$MINE/kept")
        assert trainer.checkpoint_callbacks[0].dirpath == str(tmp_path / "kept")


# Theirs beside ours or in its place ---------------------------------------------------------------


def test_an_early_stopping_takes_the_place_of_ours(workshop: Workshop) -> None:
    stop = ("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor", "val/loss")
    never = ("--trainer.callbacks.min_delta", "99", "--trainer.callbacks.patience", "1")
    often = ("--trainer.val_check_interval", "2")
    told = workshop.fit("run", *stop, *never, *often, steps=8)
    assert told.out.count("EarlyStopping takes the place of --early_stopping") == 1
    assert load(workshop.checkpoint("run"))["global_step"] == 4


def test_ours_stops_where_every_step_is_validated(workshop: Workshop) -> None:
    """Lightning takes the interval 1 for 1.0, an epoch, and would ask only at its end."""
    never = ("--early_stopping.min_delta", "99", "--early_stopping.patience", "1")
    workshop.fit("run", *never, "--trainer.val_check_interval", "1", steps=6)
    assert load(workshop.checkpoint("run"))["global_step"] == 2


def test_without_one_ours_is_there_once(built: Any) -> None:
    found = [each for each in built().callbacks if isinstance(each, EarlyStopping)]
    assert len(found) == 1 and found[0].patience == 5


@pytest.mark.slow
def test_checkpoints_of_lightning_lie_beside_ours_and_resume(workshop: Workshop) -> None:
    keep = ("--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.every_n_train_steps", "2")
    workshop.fit("run", *keep, "--trainer.callbacks.save_top_k", "-1", steps=4)
    folder = workshop.root / "run" / "checkpoints"
    names = {path.name for path in folder.iterdir()}
    assert names == {"best.ckpt", "last.ckpt", "epoch=0-step=2.ckpt", "epoch=0-step=4.ckpt"}
    theirs = folder / "epoch=0-step=2.ckpt"
    workshop.fit("again", "--ckpt_path", theirs, "--model.schedule_steps", "4", steps=4)
    assert_same_weights(workshop.checkpoint("again"), workshop.checkpoint("run"))


@pytest.mark.parametrize("setting", ["save_last true", "filename best", "filename last"])
def test_checkpoints_of_lightning_write_over_none_of_ours(
    workshop: Workshop, tmp_path: Path, setting: str
) -> None:
    name, value = setting.split()
    arguments = ("--trainer.callbacks+=ModelCheckpoint", f"--trainer.callbacks.{name}", value)
    line = workshop.run("fit", *arguments).error_line()
    assert "write over the built-in --checkpoints" in line and name in line
    elsewhere = ("--trainer.callbacks.dirpath", tmp_path / "kept")
    workshop.fit("run", *arguments, *elsewhere, steps=1)
    assert (tmp_path / "kept" / ("best.ckpt" if value == "best" else "last.ckpt")).exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [("--trainer.callbacks=TQDMProgressBar",), ("--trainer.enable_progress_bar=true",)]
)
def test_a_bar_takes_the_place_of_our_lines(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    told = workshop.fit("run", *arguments, "--trainer.log_every_n_steps", "1", steps=4)
    shown = told.out + told.err  # it depends on the bar which
    assert "loss=5." in shown and "Epoch 0: 100%" in shown
    assert "real tok/s  padding" not in told.out and "validation at step" not in told.out
    assert "held out" in told.out


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [("--trainer.callbacks=ModelSummary",), ("--trainer.enable_model_summary=true",)]
)
def test_a_summary_of_the_model_is_shown(
    workshop: Workshop, caplog: pytest.LogCaptureFixture, arguments: tuple[str, ...]
) -> None:
    workshop.fit("run", *arguments, steps=1)
    assert "Trainable params" in caplog.text and "DecoderLM" in caplog.text


@pytest.mark.slow
def test_a_mean_of_weights_is_what_is_saved_and_judged(workshop: Workshop) -> None:
    """The exponential mean, worked out anew from checkpoints of every step."""
    every = ("--checkpoints.every_n_steps", "1", "--checkpoints.keep_last", "9")
    workshop.fit("plain", *every, steps=4)
    folder = workshop.root / "plain" / "checkpoints"
    files = [folder / f"{name}.ckpt" for name in ("previous-3", "previous-2", "previous", "last")]
    steps = [load(file)["state_dict"]["model.embedding.weight"] for file in files]
    mean = steps[0]
    for weights in steps[1:]:
        mean = 0.75 * mean + 0.25 * weights
    averaging = ("--trainer.callbacks=EMAWeightAveraging", "--trainer.callbacks.decay", "0.75")
    averaged = workshop.fit("averaged", *averaging, steps=4)
    found = load(workshop.checkpoint("averaged"))["state_dict"]["model.embedding.weight"]
    torch.testing.assert_close(found, mean, atol=1e-6, rtol=0)
    assert (found - steps[-1]).abs().max() > 1e-4
    evaluated = workshop.run("validate", "--name", "averaged")
    assert evaluated.line("bits per byte") == averaged.line("bits per byte")


@pytest.mark.slow
def test_a_run_with_theirs_goes_on_from_its_own_settings(workshop: Workshop) -> None:
    """Lightning's Timer has a default that YAML cannot hold as it is."""
    theirs = ("--trainer.callbacks+=Timer", "--trainer.callbacks+=EMAWeightAveraging")
    schedule = ("--model.schedule_steps", "4")
    workshop.fit("whole", *theirs, *schedule, steps=4)
    workshop.fit("half", *theirs, *schedule, steps=2)
    folder = workshop.root / "half"
    config = ("--config", folder / "config.yaml", "--ckpt_path", folder)
    workshop.fit("half", *config, "--trainer.max_steps", "4")  # not before the file, which says 2
    assert load(workshop.checkpoint("half"))["global_step"] == 4
    assert_same_weights(workshop.checkpoint("half"), workshop.checkpoint("whole"))


def test_a_timer_takes_the_place_of_a_limit_of_time(workshop: Workshop) -> None:
    timer = ("--trainer.callbacks+=Timer", "--trainer.max_time", "00:01:00:00")
    told = workshop.fit("run", *timer, steps=1)
    assert told.out.count("Timer takes the place of --trainer.max_time") == 1


# Mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ("callbacks+=LearningRateMonitr", "did you mean LearningRateMonitor?"),
        ("callbacks LearningRateMonitr", "did you mean LearningRateMonitor?"),
        ("logger.class_path CSVLoger", "did you mean CSVLogger?"),
        ("plugins DoublePrecison", "did you mean DoublePrecision?"),
        ("strategy.class_path DDPStrategyy", "did you mean DDPStrategy?"),
        ("strategy DDPStrategy", "--trainer.strategy.class_path DDPStrategy"),
        ("accelerator.class_path CPUAccelerator", "give auto, cpu"),
        ("callbacks+=CSVLogger", "another kind"),
        ("callbacks+=torch.nn.Linear", "torch.nn.Linear: no such class"),
        (
            "callbacks+=LearningRateMonitor --trainer.callbacks.logging_intervall step",
            "takes logging_intervall (did you mean logging_interval?)",
        ),
        (
            "callbacks+=LearningRateMonitor --trainer.callbacks.logging_interval stp",
            "['step', 'epoch']",
        ),
        ("callbacks+=EarlyStopping", "--trainer.callbacks EarlyStopping needs monitor"),
        ("logger CSVLogger", "--trainer.logger CSVLogger"),
        ("callbacks+=Timer --trainer.callbacks.duration soon", "DD:HH:MM:SS"),
        ("callbacks+=Timer --trainer.callbacks+=Timer", "more than one stateful callback"),
        ("callbacks+=lightning_embed.PaddingGuard", "set --padding_guard.*"),
        ("plugins+=DoublePrecision", "DoublePrecision, not both"),
        ("plugins HalfPrecision --trainer.precision null", "turns the padding row into NaN"),
        ("strategy.class_path DDPStrategy --trainer.strategy.start_method spawn", "take ddp"),
        ("devices x", "--trainer.devices x: on a CPU"),
        ("devices -1", "--trainer.devices -1: on a CPU"),
        ("devices [0]", "--trainer.devices [0]: on a CPU"),
        ("profiler simpel", "simple"),
    ],
)
def test_a_mistake_is_one_short_line(workshop: Workshop, arguments: str, wanted: str) -> None:
    line = workshop.run("fit", *f"--trainer.{arguments}".split()).error_line()
    assert wanted in line and len(line) < 450, line
    assert workshop.runs() == []


def test_half_precision_that_a_cpu_lacks_is_said(workshop: Workshop) -> None:
    told = workshop.fit("run", "--trainer.precision", "16-mixed", steps=1)
    assert "(16-mixed is for GPUs" in told.line("numbers")
    assert not told.err


@pytest.mark.parametrize("early", [True, False])
def test_what_lightning_refuses_is_one_line_before_the_first_step(early: bool) -> None:
    kind = UserError if early else TypeError
    with pytest.raises(kind, match="int > 0"), refusals_in_one_line(lambda: early):
        L.Trainer(accelerator="cpu", devices="x", logger=False)


def test_a_bug_in_a_setting_s_way_keeps_its_traceback() -> None:
    with pytest.raises(TypeError), refusals_in_one_line():
        raise TypeError("ours")
    with pytest.raises(TypeError), refusals_in_one_line():
        L.Trainer(callbacks=3, logger=False)  # type: ignore[arg-type]  # Lightning stumbles
    with pytest.raises(UserError, match="mine"), refusals_in_one_line():
        raise UserError("mine")


def test_a_refusal_while_training_begins_is_one_line(workshop: Workshop) -> None:
    arguments = ("--trainer.callbacks", "LearningRateMonitor", "--trainer.logger", "false")
    line = workshop.run("fit", "--trainer.max_steps", "1", *arguments).error_line()
    assert "no logger" in line
    assert MisconfigurationException.__name__ not in line
