"""Two processes train as one does: same batches, same loss, same weights."""

import re
from pathlib import Path

import pytest
import torch
from commands import ROOT, Outcome, Workshop, load, padding_is_zero, run_apart

STEPS = ("--trainer.max_epochs", "1", "--trainer.log_every_n_steps", "1")
ADAMW = ("--model.optimizer", "adamw")
DDP = ("--trainer.strategy", "ddp", "--trainer.devices", "2")


def figures(outcome: Outcome) -> list[float]:
    """Loss and bits per byte of the whole held-out text."""
    line = outcome.line("held out validation loss")
    return [float(line.split()[0]), float(outcome.line("bits per byte"))]


def losses(outcome: Outcome) -> list[str]:
    return re.findall(r"step \d+/\d+.*?  loss ([\d.]+)", outcome.out)


@pytest.fixture(scope="module")
def runs(corpus: str, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(corpus, cache, tmp_path_factory.mktemp("processes"))


@pytest.fixture(scope="module")
def alone(runs: Workshop) -> Outcome:
    """The run of one process that others are compared with."""
    return runs.fit("alone", *STEPS, *ADAMW)


def several(runs: Workshop, name: str, *options: str | Path) -> Outcome:
    told = run_apart(*runs.arguments("fit", "--name", name, *STEPS, *ADAMW, *options))
    assert told.status == 0, told.out + told.err
    assert told.err == "", told.err
    return told


def assert_trained_alike(runs: Workshop, name: str) -> None:
    one, two = load(runs.checkpoint("alone")), load(runs.checkpoint(name))
    assert one["global_step"] == two["global_step"]
    for key, value in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][key], value, atol=1e-4, rtol=1e-4, msg=key)
    assert padding_is_zero(runs.checkpoint(name))
    assert padding_is_zero(runs.checkpoint(name, "best"))


def test_two_processes_train_as_one(runs: Workshop, alone: Outcome) -> None:
    told = several(runs, "two", "--config", ROOT / "configs" / "ddp.yaml")
    assert "2 processes" in told.line("numbers")
    assert figures(told) == pytest.approx(figures(alone), abs=1e-4)
    assert [float(x) for x in losses(told)] == pytest.approx(
        [float(x) for x in losses(alone)], abs=2e-3
    )
    assert_trained_alike(runs, "two")
    assert runs.runs().count("two") == 1 and "two-2" not in runs.runs()
    for line in ("run ", "corpus ", "finished", "held out", "best"):  # one process talks
        assert told.out.count(f"\n{line}") + told.out.startswith(line) == 1


def test_two_processes_evaluate_each_window_once(runs: Workshop, alone: Outcome) -> None:
    """The same checkpoint, so that sums over the held-out text must agree to the last digit."""
    best = runs.checkpoint("alone", "best")
    told = run_apart(*runs.arguments("validate", "--ckpt_path", best, *DDP))
    assert told.status == 0, told.err
    assert figures(told) == figures(alone)


def test_a_model_in_shards_trains_as_one(runs: Workshop, alone: Outcome) -> None:
    told = several(runs, "shards", "--config", ROOT / "configs" / "fsdp.yaml")
    assert "2 processes" in told.line("numbers")
    assert figures(told) == pytest.approx(figures(alone), abs=1e-4)
    assert_trained_alike(runs, "shards")


@pytest.mark.slow
def test_a_run_of_one_process_goes_on_with_two(runs: Workshop, alone: Outcome) -> None:
    stop = ("--trainer.callbacks+=commands.SignalAt", "--trainer.callbacks.step=4")
    assert runs.run("fit", "--name", "grown", *STEPS, *ADAMW, *stop).status == 143
    told = several(runs, "grown", *DDP, "--ckpt_path", "last")
    assert "step 4," in told.line("resume")
    assert_trained_alike(runs, "grown")


@pytest.mark.slow
def test_accumulation_with_two_processes(runs: Workshop, alone: Outcome) -> None:
    told = several(runs, "both", *DDP, "--trainer.accumulate_grad_batches", "2")
    assert figures(told) == pytest.approx(figures(alone), abs=1e-4)
    assert_trained_alike(runs, "both")
