"""What is said of a mixture's shares."""

from types import SimpleNamespace
from typing import Any

import pytest

from lightning_embed.data.mixture import Ingredient
from lightning_embed.watching.mixture_table import say_mixture


@pytest.mark.parametrize(
    ("had", "named"), [(0.499, "small"), (0.4996, ""), (0.4, "small"), (0.5006, "large")]
)
def test_a_share_that_is_not_met_is_noted(
    capsys: pytest.CaptureFixture[str], had: float, named: str
) -> None:
    rows = [
        Ingredient("large", 900, 0.5, 1 - had, 1.0),
        Ingredient("small", 100, 0.5, had, 4.0 if had < 0.5 else 1.0),
    ]
    mixture = SimpleNamespace(ingredients=rows)
    data: Any = SimpleNamespace(mixture=mixture, max_passes=4.0)
    say_mixture(data)
    note = [x for x in capsys.readouterr().out.splitlines() if x.startswith("note")]
    assert [x.split()[1] for x in note] == ([f"{named}:"] if named else [])
