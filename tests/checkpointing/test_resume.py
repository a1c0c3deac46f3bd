"""A run that was stopped goes on bit by bit as if nothing had happened, or says why it does not."""

import os
import pickle
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from workshop import (
    APART,
    ROOT,
    TINY,
    Harm,
    Workshop,
    assert_same_weights,
    differs,
    load,
    padding_is_zero,
    run,
)

from lightning_embed.sources import stdlib

TWO_EPOCHS = ("--trainer.max_epochs", "2", "--model.dropout", "0.1")
LAST = ("--ckpt_path", "last")


def stop_at(step: int, signal_name: str = "SIGTERM") -> tuple[str, ...]:
    """Options of a run that is told to stop in the middle of this step."""
    name = "--trainer.callbacks"
    return (
        *(f"{name}+=workshop.SignalAt", f"{name}.step={step}"),
        *(f"{name}.signal_name={signal_name}",),
    )


@pytest.fixture(scope="module")
def after_5_steps(corpus: str, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run called `run`, stopped after 5 of 18 steps; not to be touched."""
    shop = Workshop(corpus, cache, tmp_path_factory.mktemp("stopped"))
    assert shop.run("fit", "--name", "run", *TWO_EPOCHS, *stop_at(5)).status == 143
    return shop.root / "run"


@pytest.fixture
def stopped(workshop: Workshop, after_5_steps: Path) -> Workshop:
    """That run, copied."""
    shutil.copytree(after_5_steps, workshop.root / "run")
    return workshop


# -- the same weights in the end -------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(corpus: str, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a run of two epochs that nobody disturbed."""
    shop = Workshop(corpus, cache, tmp_path_factory.mktemp("whole"))
    shop.fit("run", *TWO_EPOCHS)
    return shop.checkpoint("run")


def steps_in_an_epoch(checkpoint: Path) -> int:
    steps: int = load(checkpoint)["global_step"]
    return steps // 2


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("first step", "SIGTERM"),
        ("middle", "SIGUSR1"),
        ("end of epoch 1", "SIGINT"),
        ("epoch 2", "SIGHUP"),
    ],
)
def test_a_stopped_run_goes_on_exactly(
    workshop: Workshop, whole: Path, not_nohup: None, place: str, name: str
) -> None:
    epoch = steps_in_an_epoch(whole)
    step = {"first step": 1, "middle": 4, "end of epoch 1": epoch, "epoch 2": epoch + 3}[place]
    told = workshop.run("fit", "--name", "run", *TWO_EPOCHS, *stop_at(step, name))
    assert told.status == 128 + signal.Signals[name]
    assert told.line("stopped") == f"by {name} after step {step}"
    assert load(workshop.checkpoint("run"))["global_step"] == step
    assert differs(workshop.checkpoint("run"), whole)
    told = workshop.fit("run", *TWO_EPOCHS, *LAST)
    assert told.line("resume").endswith(f"step {step}, epoch {step // epoch}")
    assert workshop.runs() == ["run"]
    assert load(workshop.checkpoint("run"))["global_step"] == 2 * epoch
    assert_same_weights(workshop.checkpoint("run"), whole)


def test_a_run_stopped_again_and_again_goes_on_exactly(workshop: Workshop, whole: Path) -> None:
    workshop.run("fit", "--name", "run", *TWO_EPOCHS, *stop_at(3))
    for step in (7, steps_in_an_epoch(whole) + 2):
        told = workshop.run("fit", "--name", "run", *TWO_EPOCHS, *LAST, *stop_at(step, "SIGINT"))
        assert told.status == 130, told.out + told.err
    workshop.fit("run", *TWO_EPOCHS, *LAST)
    assert_same_weights(workshop.checkpoint("run"), whole)
    assert len(list((workshop.root / "run").glob("config*.yaml"))) == 4


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGTERM"])
def test_under_slurm_too_the_run_stops_by_our_rules(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Lightning would save elsewhere and queue the job again, or go on."""
    monkeypatch.setenv("SLURM_NTASKS", "1")
    for variable in ("PROCID", "LOCALID", "NODEID", "JOB_ID"):
        monkeypatch.setenv(f"SLURM_{variable}", "0")
    told = workshop.run("fit", "--name", "run", *TWO_EPOCHS, *stop_at(3, name))
    assert told.status == 128 + signal.Signals[name]
    assert told.line("stopped") == f"by {name} after step 3"
    assert workshop.runs() == ["run"]  # no hpc_ckpt_1.ckpt
    assert load(workshop.checkpoint("run"))["global_step"] == 3


def test_an_accident_loses_nothing_but_its_own_step(workshop: Workshop, whole: Path) -> None:
    fail = ("--trainer.callbacks+=workshop.FailAt", "--trainer.callbacks.step=8")
    often = ("--checkpoints.every_n_steps", "3")
    told = workshop.run("fit", "--name", "run", *TWO_EPOCHS, *often, *fail)
    assert told.error_line() == "the machine caught fire"
    assert load(workshop.checkpoint("run"))["global_step"] == 7
    assert load(workshop.checkpoint("run", "previous"))["global_step"] == 6
    workshop.fit("run", *TWO_EPOCHS, *often, *LAST)
    assert_same_weights(workshop.checkpoint("run"), whole)


def test_a_run_killed_while_its_last_checkpoint_is_written_has_one_in_the_end(
    workshop: Workshop,
) -> None:
    """Its last validation wrote best.ckpt, which the resume takes, and nothing is left to train."""
    workshop.fit("run", "--trainer.val_check_interval", "3", steps=6)
    for kind in ("last", "previous"):
        workshop.checkpoint("run", kind).unlink(missing_ok=True)
    assert load(workshop.checkpoint("run", "best"))["global_step"] == 6
    told = workshop.fit("run", *LAST, "--trainer.val_check_interval", "3", steps=6)
    assert "nothing was left to train" in told.line("note")
    assert load(workshop.checkpoint("run"))["global_step"] == 6
    assert_same_weights(workshop.checkpoint("run"), workshop.checkpoint("run", "best"))


def test_accumulation_stops_between_optimizer_steps(workshop: Workshop) -> None:
    options = (*TWO_EPOCHS, "--trainer.accumulate_grad_batches", "2")
    workshop.fit("whole", *options)
    assert workshop.run("fit", "--name", "run", *options, *stop_at(4)).status == 143
    workshop.fit("run", *options, *LAST)
    assert_same_weights(workshop.checkpoint("run"), workshop.checkpoint("whole"))


def test_a_packed_run_goes_on_exactly(workshop: Workshop) -> None:
    options = (*TWO_EPOCHS, "--data.layout", "packed")
    workshop.fit("whole", *options)
    steps = load(workshop.checkpoint("whole"))["global_step"]
    assert workshop.run("fit", "--name", "run", *options, *stop_at(steps // 2 + 2)).status == 143
    workshop.fit("run", *options, *LAST)
    assert load(workshop.checkpoint("run"))["global_step"] == steps
    assert_same_weights(workshop.checkpoint("run"), workshop.checkpoint("whole"))


def test_a_finished_run_can_be_made_longer(workshop: Workshop) -> None:
    constant = ("--model.schedule", "constant", "--model.warmup_steps", "2")
    workshop.fit("whole", *constant, steps=14)
    workshop.fit("run", *constant, steps=5)
    workshop.fit("run", *constant, *LAST, steps=14)
    assert_same_weights(workshop.checkpoint("run"), workshop.checkpoint("whole"))


# -- a signal from outside -------------------------------------------------------------------


def test_a_signal_saves_and_tells_how_to_go_on(workshop: Workshop) -> None:
    """To a long run in a process of its own; the other signals are sent from within, above."""
    arguments = workshop.arguments("fit", "--name", "run", "--trainer.max_steps", "1000000")
    with subprocess.Popen(
        [sys.executable, "-u", str(ROOT / "train.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | APART,
        cwd=ROOT,
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("compile"):  # its first step is done
                    break
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 128 + signal.SIGINT
    assert err == ""
    step = int(re.findall(r"after step (\d+)", out)[0])
    path = workshop.checkpoint("run")
    assert load(path)["global_step"] == step > 0
    assert padding_is_zero(path)
    assert str(path) in out
    command = next(line for line in out.splitlines() if line.startswith("go on"))
    words = shlex.split(command.removeprefix("go on"))
    assert words[:3] == ["python", str(ROOT / "train.py"), "fit"]  # as it was started
    told = run(*words[2:], "--trainer.max_steps", step + 2)
    assert told.status == 0, told.err
    assert f"step {step}," in told.line("resume")


# -- what is refused or said -----------------------------------------------------------------


def test_last_without_a_run_never_starts_from_scratch(workshop: Workshop) -> None:
    told = workshop.run("fit", "--name", "nothing", *LAST)
    assert "no checkpoint of a run named 'nothing'" in told.error_line()
    assert workshop.runs() == []


def test_a_damaged_checkpoint_is_named_and_the_one_before_serves(stopped: Workshop) -> None:
    good = stopped.checkpoint("run")
    newer = good.with_name("newer.ckpt")
    content = bytearray(good.read_bytes())
    content[len(content) // 2] ^= 0xFF
    newer.write_bytes(content)
    told = stopped.fit("run", *TWO_EPOCHS, *LAST)
    assert str(newer) in told.line("warning") and "damaged" in told.line("warning")
    assert str(good) in told.line("resume")


def test_a_damaged_checkpoint_given_by_path_is_refused(stopped: Workshop) -> None:
    path = stopped.checkpoint("run")
    path.write_bytes(path.read_bytes()[:-1000])
    told = stopped.run("fit", *TWO_EPOCHS, "--ckpt_path", path)
    assert str(path) in told.error_line() and "damaged" in told.error_line()
    assert str(path) in stopped.run("fit", *TWO_EPOCHS, "--name", "run", *LAST).err


def optimizer_groups(checkpoint: Path) -> dict[str, Any]:
    return {g["name"]: g for g in load(checkpoint)["optimizer_states"][0]["param_groups"]}


def test_a_changed_learning_rate_is_said_and_applied(stopped: Workshop) -> None:
    constant = ("--model.schedule", "constant", "--model.warmup_steps", "0")
    changed = ("--model.lr", "0.0005", "--model.muon_lr", "0.001", "--model.weight_decay", "0.2")
    before = optimizer_groups(stopped.checkpoint("run"))
    assert before["embeddings"]["initial_lr"] == 0.003
    told = stopped.run("fit", "--name", "run", *TWO_EPOCHS, *constant, *changed, *LAST, *stop_at(7))
    assert told.status == 143, told.err
    assert "model.lr 0.003 -> 0.0005" in told.out
    assert "model.weight_decay 0.1 -> 0.2" in told.out
    after = optimizer_groups(stopped.checkpoint("run"))
    assert after["embeddings"]["lr"] == after["vectors"]["lr"] == 0.0005
    assert after["matrices"]["lr"] == 0.001
    assert after["matrices"]["weight_decay"] == 0.2 and after["embeddings"]["weight_decay"] == 0


def test_the_first_step_after_resuming_already_takes_the_new_learning_rate(
    stopped: Workshop,
) -> None:
    """A rate of 0 must leave every weight as it was."""
    path = stopped.checkpoint("run")
    before = path.with_name("before.copy")
    before.write_bytes(path.read_bytes())
    zero = ("--model.lr", "0", "--model.muon_lr", "0")
    assert stopped.run("fit", "--name", "run", *TWO_EPOCHS, *zero, *LAST, *stop_at(7)).status == 143
    assert load(path)["global_step"] == 7
    assert_same_weights(before, path)


def test_other_data_is_refused(stopped: Workshop, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("quite another text, and not a long one either\n" * 50, encoding="utf-8")
    before = stopped.checkpoint("run").read_bytes()
    told = stopped.run("fit", "--name", "run", *TWO_EPOCHS, *LAST, "--data.files", other)
    assert "data" in told.error_line()
    assert stopped.checkpoint("run").read_bytes() == before


@pytest.mark.parametrize("option", ["d_model 64", "n_layers 3", "tied false", "qk_norm false"])
def test_another_shape_is_refused(stopped: Workshop, option: str) -> None:
    key, value = option.split()
    told = stopped.run("fit", "--name", "run", *TWO_EPOCHS, f"--model.{key}", value, *LAST)
    assert f"--model.{key}" in told.error_line()


def test_a_checkpoint_elsewhere_goes_on_in_a_folder_of_its_own(
    stopped: Workshop, whole: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved.ckpt"
    moved.write_bytes(stopped.checkpoint("run").read_bytes())
    stopped.fit("run", *TWO_EPOCHS, "--ckpt_path", moved)
    assert stopped.runs() == ["run", "run-2"]
    assert_same_weights(stopped.checkpoint("run-2"), whole)


# -- files that would run a program ----------------------------------------------------------


@pytest.mark.parametrize("form", ["torch", "pickle"])
@pytest.mark.parametrize("command", ["fit", "validate", "generate"])
def test_a_malicious_checkpoint_runs_nothing(
    workshop: Workshop, tmp_path: Path, form: str, command: str
) -> None:
    evil, trace = tmp_path / "evil.ckpt", tmp_path / "trace"
    content = {"state_dict": {}, "hyper_parameters": {}, "x": Harm(trace)}
    if form == "torch":
        torch.save(content, evil)
    else:
        evil.write_bytes(pickle.dumps(content))
    if command == "generate":
        told = run("generate", "--checkpoint", evil, "--prompt", "a")
    else:
        told = workshop.run(command, "--ckpt_path", evil)
    assert str(evil) in told.error_line()
    assert not trace.exists()
    assert workshop.runs() == []


@pytest.mark.parametrize("command", ["validate", "generate"])
def test_a_foreign_checkpoint_is_refused(workshop: Workshop, tmp_path: Path, command: str) -> None:
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"weight": torch.zeros(3)}, foreign)
    if command == "generate":
        told = run("generate", "--checkpoint", foreign)
    else:
        told = workshop.run(command, "--ckpt_path", foreign)
    assert str(foreign) in told.error_line()


# -- divided in another way ------------------------------------------------------------------


def test_accumulation_may_change_in_the_middle(workshop: Workshop) -> None:
    """The same global batches, so the same training but for rounding."""
    parts = (4, 1, 2)
    options = (*TWO_EPOCHS[:2], "--model.optimizer", "adamw", "--trainer.val_check_interval", "4")
    workshop.fit("whole", *options)
    told = []
    for number, (accumulate, stop) in enumerate(zip(parts, (5, 13, None), strict=True)):
        divided = ("--trainer.accumulate_grad_batches", str(accumulate))
        told.append(
            workshop.run(
                *("fit", "--name", "run", *options, *divided),
                *(LAST if number else ()),
                *(stop_at(stop) if stop else ()),
            )
        )
    assert [each.status for each in told] == [143, 143, 0]
    change = f"trainer.accumulate_grad_batches {parts[0]} -> {parts[1]}, applied from here on"
    assert told[1].line("changed") == change
    assert_same_weights(workshop.checkpoint("run"), workshop.checkpoint("whole"), tolerance=5e-5)
    mine, theirs = (dict(curve(workshop, name, "loss/validation")) for name in ("run", "whole"))
    assert mine == pytest.approx(theirs, abs=1e-4)


def curve(shop: Workshop, name: str, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(shop.root / name))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


# -- what the end of a part must not bend ----------------------------------------------------


OFTEN = (*TWO_EPOCHS, "--trainer.val_check_interval", "3", "--trainer.log_every_n_steps", "1")


@pytest.fixture(scope="module")
def often(corpus: str, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """With an undisturbed run called `whole`, validated and logged often."""
    shop = Workshop(corpus, cache, tmp_path_factory.mktemp("often"))
    shop.fit("whole", *OFTEN)
    return shop


def test_a_validation_that_was_stopped_is_made_up_for(workshop: Workshop, often: Workshop) -> None:
    name = "--trainer.callbacks"
    stop = (f"{name}+=workshop.SignalInValidation", f"{name}.step=6")
    told = workshop.run("fit", "--name", "run", *OFTEN, *stop)
    assert told.status == 143 and told.line("stopped") == "by SIGTERM after step 6"
    workshop.fit("run", *OFTEN, *LAST)
    for kind in ("last", "best"):
        assert_same_weights(workshop.checkpoint("run", kind), often.checkpoint("whole", kind))
    for tag in ("loss/validation", "loss/train"):
        assert curve(workshop, "run", tag) == curve(often, "whole", tag)


def test_curves_have_no_double_step_after_an_accident(workshop: Workshop, often: Workshop) -> None:
    workshop.fit("run", *OFTEN, "--checkpoints.every_n_steps", "5")
    folder = workshop.root / "run" / "checkpoints"
    (folder / "last.ckpt").unlink()  # as if killed some steps after the one before
    (folder / "best.ckpt").unlink()
    told = workshop.fit("run", *OFTEN, *LAST)
    assert "previous.ckpt: step 15" in told.line("resume")
    for tag in ("loss/validation", "loss/train"):
        assert curve(workshop, "run", tag) == curve(often, "whole", tag)


def test_a_run_stopped_by_a_callback_goes_on_in_the_middle_of_the_epoch(
    workshop: Workshop, whole: Path
) -> None:
    """As `--trainer.max_time` and early stopping do it."""
    name = "--trainer.callbacks"
    halt = (f"{name}+=workshop.HaltAt", f"{name}.step=5")
    told = workshop.fit("run", *TWO_EPOCHS, *halt)
    assert "finished 5 steps" in told.out
    workshop.fit("run", *TWO_EPOCHS, *LAST)
    assert_same_weights(workshop.checkpoint("run"), whole)


def test_going_on_for_longer_does_not_bend_the_schedule(workshop: Workshop) -> None:
    schedule = ("--model.schedule", "cosine", "--model.final_fraction", "0.1")
    workshop.fit("whole", *schedule, "--model.schedule_steps", "6", steps=14)
    workshop.fit("run", *schedule, steps=6)
    told = workshop.fit("run", *schedule, *LAST, steps=14)
    assert "--model.schedule_steps 14" in told.line("schedule is over at step 6")
    assert told.line("changed") == "trainer.max_steps 6 -> 14, applied from here on"
    assert_same_weights(workshop.checkpoint("run"), workshop.checkpoint("whole"))
    told = workshop.fit("run", *schedule, *LAST, "--model.schedule_steps", "30", steps=16)
    assert "model.schedule_steps 6 -> 30, applied" in told.out


@pytest.mark.parametrize(
    "option",
    [
        "data.max_length 24",
        "data.tokens_per_batch 320",
        "data.rows_per_batch 3",
        "seed_everything 7",
    ],
)
def test_another_plan_is_refused(stopped: Workshop, option: str) -> None:
    flag, value = option.split()
    told = stopped.run("fit", "--name", "run", *TWO_EPOCHS, *LAST, f"--{flag}", value)
    assert f"--{flag} is {value}" in told.error_line()


def test_weights_of_another_shape_are_refused_before_any_is_copied(stopped: Workshop) -> None:
    path = stopped.checkpoint("run")
    saved = load(path)
    saved["state_dict"]["model.norm.weight"] = torch.ones(7)
    torch.save(saved, path)
    for command in ("fit", "validate"):
        told = stopped.run(command, *TWO_EPOCHS, "--ckpt_path", path)
        assert "model.norm.weight" in told.error_line()


def test_moments_of_another_shape_are_refused(stopped: Workshop) -> None:
    path = stopped.checkpoint("run")
    saved = load(path)
    states = saved["optimizer_states"][0]["state"]
    states[next(iter(states))]["momentum_buffer"] = torch.ones(3, 3)
    torch.save(saved, path)
    told = stopped.run("fit", "--name", "run", *TWO_EPOCHS, *LAST)
    assert "moment" in told.error_line()


def test_a_patched_library_goes_on_with_the_tokens_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "library"
    library.mkdir()
    for number, name in enumerate(sorted(sys.stdlib_module_names)[:60]):
        text = f"def {name}(x):\n" + "".join(f"    y{n} = x + {number}\n" for n in range(20))
        (library / f"{name}.py").write_text(text)
    read = stdlib.read_sources
    monkeypatch.setattr(stdlib, "library_root", lambda: library)
    monkeypatch.setattr(stdlib, "read_sources", lambda root, least: read(root, 0))
    where = (
        "--data.cache_dir",
        tmp_path / "cache",
        "--trainer.default_root_dir",
        tmp_path / "runs",
    )
    options = ("fit", *TINY, *where, "--model.schedule", "constant")
    assert run(*options, "--name", "whole", "--trainer.max_steps", "8").status == 0
    assert run(*options, "--name", "run", "--trainer.max_steps", "4").status == 0
    (library / f"{name}.py").write_text("def other(): pass\n")
    told = run(*options, "--name", "run", "--trainer.max_steps", "8", *LAST)
    assert told.status == 0, told.err
    assert "the standard library has changed" in told.line("note")
    checkpoints = [tmp_path / "runs" / n / "checkpoints" / "last.ckpt" for n in ("run", "whole")]
    assert_same_weights(*checkpoints)
    shutil.rmtree(tmp_path / "cache")  # without them it is another text
    told = run(*options, "--name", "run", "--trainer.max_steps", "9", *LAST)
    assert "was trained on data" in told.error_line()
