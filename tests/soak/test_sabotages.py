"""Each of the twelve sabotages is named at its step in every precision, and repaired if so asked.

The ordinary suite has them once, in float32 (`tests/padding/test_sabotages.py`).
"""

import pytest
from soak.sabotages import SABOTAGES, Sabotage, caught

pytestmark = pytest.mark.slow

PRECISIONS = ("32-true", "64-true", "bf16-mixed", "bf16-true")
each_sabotage = pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda s: s.name)
each_precision = pytest.mark.parametrize("precision", PRECISIONS)


@each_sabotage
@each_precision
def test_the_guard_names_step_and_cause(sabotage: Sabotage, precision: str) -> None:
    assert caught(sabotage, precision) == (sabotage.step, sabotage.cause)


@each_sabotage
@each_precision
def test_repair_goes_on(
    sabotage: Sabotage, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert caught(sabotage, precision, on_change="repair") is None
    assert sabotage.cause in capsys.readouterr().out
