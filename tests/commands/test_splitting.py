"""A run that memory is too small for: split by an estimate, or begun anew."""

import re
from typing import Any

import lightning as L
import pytest
import torch
import yaml
from workshop import Workshop, assert_same_weights, load

from lightning_embed.commands import splitting
from lightning_embed.training.memory import TrainingMemory

FLAG = "--trainer.accumulate_grad_batches"


def configured(shop: Workshop, run: str, file: str = "config.yaml") -> int:
    config = yaml.safe_load((shop.root / run / file).read_text(encoding="utf-8"))
    accumulate: int = config["trainer"]["accumulate_grad_batches"]
    return accumulate


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which 85 positions fit: 2 rows of 32, or 3 of 28."""
    monkeypatch.setattr(splitting, "free_memory", lambda device, **_: 85e9)
    monkeypatch.setattr(
        splitting,
        "training_memory",
        lambda settings, vocab_size, rows, width, **more: TrainingMemory(
            0, 0, 0, rows * width * 1e9, 0, 0
        ),
    )


@pytest.mark.usefixtures("small")
def test_a_step_that_does_not_fit_is_split_and_said_and_written_down(workshop: Workshop) -> None:
    told = workshop.fit("split", steps=4)
    assert told.line("memory") == (
        "a step needs 256 GB, 85.0 GB are free: split into 4 micro-batches"
        f" ({FLAG} 4, not 1), which trains the same"
    )
    assert configured(workshop, "split") == 4
    asked = workshop.fit("asked", FLAG, "4", steps=4)
    assert "memory" not in asked.out
    assert_same_weights(workshop.checkpoint("split"), workshop.checkpoint("asked"))
    more = workshop.fit("raised", FLAG, "3", steps=1)
    assert f"{FLAG} 6, not 3" in more.line("memory")


@pytest.mark.usefixtures("small")
def test_a_resume_goes_on_with_the_split(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = ("--model.schedule_steps", "8")
    workshop.fit("split", *schedule, steps=4)
    workshop.fit("whole", *schedule, steps=8)
    monkeypatch.undo()  # more memory makes no difference
    config = workshop.root / "split" / "config.yaml"
    told = workshop.fit("split", "--config", config, "--ckpt_path", "last", steps=8)
    assert "accumulate_grad_batches" not in told.out and "memory" not in told.out
    assert configured(workshop, "split", "config-resume-1.yaml") == 4
    assert_same_weights(workshop.checkpoint("split"), workshop.checkpoint("whole"))


def test_a_row_that_does_not_fit_is_refused_before_anything_is_written(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splitting, "free_memory", lambda device, **_: 2e6)
    told = workshop.run("fit", "--trainer.max_steps", "2")
    line = told.error_line()
    assert re.match(r"a single row of 32 tokens needs \d\d MB to train, 2 MB are free: lower", line)
    assert "--model.n_layers, --model.d_model or --data.max_length" in line
    assert "--model.checkpoint_activations true" in line
    assert workshop.runs() == []
    more = ("--model.checkpoint_activations", "true")
    assert "checkpoint_act" not in workshop.run("fit", *more).error_line()


def test_a_platform_that_does_not_tell_is_trusted(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splitting, "free_memory", lambda device, **_: None)
    assert "memory" not in workshop.fit("run", steps=1).out


class SmallGPU(L.Callback):
    """Memory is used up in step `step` unless it is split into at least `parts`."""

    def __init__(self, step: int, parts: int, where: str = "on_train_batch_start") -> None:
        self.step, self.parts = step, parts
        setattr(self, where, self.allocate)

    def allocate(self, trainer: L.Trainer, *args: Any) -> None:
        here = trainer.global_step == self.step - 1
        if here and trainer.accumulate_grad_batches < self.parts:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def small_gpu(step: int, parts: int, where: str = "on_train_batch_start") -> tuple[str, ...]:
    arguments = {"step": step, "parts": parts, "where": where}
    return (
        f"--trainer.callbacks+={__name__}.SmallGPU",
        *(f"--trainer.callbacks.{name}={value}" for name, value in arguments.items()),
    )


@pytest.mark.parametrize(
    ("step", "where"), [(1, "on_train_batch_start"), (2, "on_before_optimizer_step")]
)
def test_memory_used_up_in_the_first_steps_begins_the_run_anew(
    workshop: Workshop, step: int, where: str
) -> None:
    dropout = ("--model.dropout", "0.1")
    told = workshop.fit("anew", *dropout, *small_gpu(step, 4, where), steps=4)
    lines = [line for line in told.out.splitlines() if line.startswith("memory")]
    assert [line.split(":")[0] for line in lines] == [f"memory   used up in step {step}"] * 2
    assert f"{FLAG} 2" in lines[0] and f"{FLAG} 4" in lines[1]
    assert "saved " not in told.out
    assert workshop.runs() == ["anew"] and configured(workshop, "anew") == 4
    workshop.fit("whole", *dropout, FLAG, "4", steps=4)
    assert_same_weights(workshop.checkpoint("anew"), workshop.checkpoint("whole"))


def test_a_resume_begins_anew_from_its_checkpoint(workshop: Workshop) -> None:
    workshop.fit("run", steps=3)
    again = ("--ckpt_path", workshop.root / "run")
    workshop.fit("other", "--ckpt_path", workshop.checkpoint("run"), FLAG, "2", steps=6)
    told = workshop.fit("run", *again, *small_gpu(4, 2), steps=6)
    assert "used up in step 4" in told.line("memory")
    assert load(workshop.checkpoint("run"))["global_step"] == 6
    assert_same_weights(workshop.checkpoint("run"), workshop.checkpoint("other"))
    assert workshop.runs() == ["other", "run"]


def test_later_it_ends_the_run_with_the_flag_that_helps(workshop: Workshop) -> None:
    told = workshop.run("fit", "--name", "run", "--trainer.max_steps", "9", *small_gpu(6, 2))
    assert told.error_line() == (
        f"step 6: the GPU's memory is used up; {FLAG} 2 splits a step into smaller parts and"
        " trains the same"
    )
    assert load(workshop.checkpoint("run"))["global_step"] == 5


def test_a_gpu_too_small_for_one_row_is_said(workshop: Workshop) -> None:
    told = workshop.run("fit", "--trainer.max_steps", "2", FLAG, "8", *small_gpu(1, 99))
    assert "does not hold a single row of 32 tokens: lower --model.n_layers" in told.error_line()
