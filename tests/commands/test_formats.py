"""A run's number formats are chosen once, stand in its configuration, and are kept when it goes on
on a machine that would choose others."""

from pathlib import Path

import pytest
import torch
import yaml
from workshop import TINY, load, run, write_corpus

from lightning_embed.arithmetic import Format
from lightning_embed.commands import settling

HALF = Format(torch.bfloat16, "the processor has AMX")
FULL = Format(torch.float32, "no fast bfloat16 found")
PRECISION = TINY.index("--trainer.precision")
FREE = (*TINY[:PRECISION], *TINY[PRECISION + 2 :])  # but for the precision


class Machine:
    """Runs of two steps on a machine whose fastest format is made up."""

    def __init__(self, folder: Path, cache: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder / "runs" / "one", patch
        self.given = ("--data.files", write_corpus(folder / "text"), "--data.cache_dir", str(cache))
        self.given += ("--trainer.default_root_dir", str(folder / "runs"), "--name", "one", *FREE)

    def fit(self, fastest: Format, *more: str, steps: int = 2) -> str:
        self.patch.setattr(settling, "fastest_format", lambda accelerator: fastest)
        told = run("fit", *self.given, "--trainer.max_steps", str(steps), *more)
        assert told.status == 0, told.err
        return told.out

    def formats(self, config: str = "config.yaml") -> tuple[str, str, str]:
        """In the configuration, of precision and Muon, and of the optimizer's state."""
        settings = yaml.safe_load((self.folder / config).read_text(encoding="utf-8"))
        (optimizer,) = load(self.folder / "checkpoints" / "last.ckpt")["optimizer_states"]
        return (
            settings["trainer"]["precision"],
            settings["model"]["muon_dtype"],
            optimizer["param_groups"][0]["dtype"],
        )


@pytest.fixture
def machine(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, cache, monkeypatch)


@pytest.mark.parametrize(
    ("fastest", "precision"), [(HALF, "bf16-mixed"), (FULL, "32-true")], ids=["half", "full"]
)
def test_a_run_takes_what_the_machine_is_fastest_with(machine, fastest, precision) -> None:
    told = machine.fit(fastest)
    assert f"{precision} ({fastest.reason})" in told and "is slow" not in told
    assert machine.formats() == (precision, fastest.name, fastest.name)


def test_a_run_goes_on_as_it_began_on_another_machine(machine) -> None:
    machine.fit(HALF)
    told = machine.fit(FULL, "--ckpt_path", "last", steps=4)
    assert "bf16-mixed (as the run began)" in told and "changed  trainer.precision" not in told
    assert "--trainer.precision bf16-mixed is slow on this machine, no fast bfloat16" in told
    assert "--model.muon_dtype bfloat16 is slow on this machine" in told
    assert machine.formats("config-resume-1.yaml") == ("bf16-mixed", "bfloat16", "bfloat16")


def test_another_format_is_taken_where_it_is_asked_for(machine) -> None:
    machine.fit(HALF)
    asked = ("--trainer.precision", "32-true", "--model.muon_dtype", "float32")
    told = machine.fit(FULL, "--ckpt_path", "last", *asked, steps=4)
    assert "trainer.precision bf16-mixed -> 32-true" in told and "is slow" not in told
    assert "model.muon_dtype bfloat16 -> float32" in told
    assert machine.formats("config-resume-1.yaml") == ("32-true", "float32", "float32")


@pytest.mark.parametrize(("fastest", "precision"), [(HALF, "bf16-mixed"), (FULL, "32-true")])
def test_float16_on_a_processor_becomes_what_it_is_fast_with(machine, fastest, precision) -> None:
    told = machine.fit(fastest, "--trainer.precision", "16-mixed")
    assert f"{precision} (16-mixed is for GPUs, {fastest.reason})" in told


def test_a_run_of_a_version_without_formats_and_turns_goes_on(machine) -> None:
    machine.fit(HALF)
    path = machine.folder / "checkpoints" / "last.ckpt"
    old = load(path)
    for name in ("muon_dtype", "muon_turns", "checkpoint_activations"):
        del old["hyper_parameters"][name]
    for group in old["optimizer_states"][0]["param_groups"]:
        for name in ("dtype", "turns", "turn"):
            del group[name]
    torch.save(old, path)
    machine.fit(HALF, "--ckpt_path", "last", steps=4)
    found = load(path)
    assert found["global_step"] == 4 and found["hyper_parameters"]["muon_turns"] == 1
    matrices = found["optimizer_states"][0]["param_groups"][0]
    assert (matrices["dtype"], matrices["turns"], matrices["turn"]) == ("bfloat16", 1, 2)
