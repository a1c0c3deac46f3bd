"""With prevention off, the guard names each sabotage at its step, with its cause."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from sabotages import SABOTAGES, Plain, Sabotage, adamw, caught


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda s: s.name)
def test_the_guard_names_step_and_cause(sabotage: Sabotage) -> None:
    assert caught(sabotage) == (sabotage.step, sabotage.cause)


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda s: s.name)
def test_repair_goes_on(sabotage: Sabotage, capsys: pytest.CaptureFixture[str]) -> None:
    assert caught(sabotage, on_change="repair") is None
    assert sabotage.cause in capsys.readouterr().out


def test_an_honest_run_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert caught(Sabotage("none", "", 0, lambda: Plain(adamw))) is None
    assert capsys.readouterr().out == ""
