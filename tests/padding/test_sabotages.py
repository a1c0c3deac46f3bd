"""With nothing to prevent it, the guard names each of twelve sabotages at its step, with its cause.

In float32; `tests/soak/test_sabotages.py` has the other precisions and repairs.
"""

import pytest
from soak.sabotages import SABOTAGES, Plain, Sabotage, adamw, caught


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda s: s.name)
def test_the_guard_names_step_and_cause(sabotage: Sabotage) -> None:
    assert caught(sabotage) == (sabotage.step, sabotage.cause)


def test_repair_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert caught(SABOTAGES[0], on_change="repair") is None
    assert SABOTAGES[0].cause in capsys.readouterr().out


def test_an_honest_run_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert caught(Sabotage("none", "", 0, lambda: Plain(adamw))) is None
    assert capsys.readouterr().out == ""
