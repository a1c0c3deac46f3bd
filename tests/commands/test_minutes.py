"""`fit --minutes`: one dial that sizes a run, and is gone when the run begins."""

import time
from pathlib import Path

import pytest
import yaml
from workshop import Workshop, assert_same_weights, run

from lightning_embed import console
from lightning_embed.commands.minutes import HANDED_ON, named_in

QUIET = (
    *("--samples.max_new_tokens", "3", "--trainer.precision", "32-true"),
    *("--trainer.accelerator", "cpu", "--data.max_length", "32", "--data.vocab_size", "400"),
)


@pytest.fixture(autouse=True)
def begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program starts with the test."""
    monkeypatch.setattr("lightning_embed.commands.minutes.BEGAN", time.perf_counter())


def fit(workshop: Workshop, name: str, *more: str | Path) -> Workshop:
    told = run("fit", "--name", name, *QUIET, *workshop.where, *more)
    assert told.status == 0, told.out + told.err
    return workshop


def settings(workshop: Workshop, name: str) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = yaml.safe_load(
        (workshop.root / name / "config.yaml").read_text()
    )
    return found


def test_the_same_settings_train_the_same_without_the_dial(workshop: Workshop) -> None:
    fit(workshop, "sized", "--minutes", "1")
    saved = settings(workshop, "sized")
    assert saved["minutes"] is None
    fit(workshop, "again", "--config", workshop.root / "sized" / "config.yaml")
    for kind in ("last", "best"):
        assert_same_weights(workshop.checkpoint("sized", kind), workshop.checkpoint("again", kind))
