"""Fixtures that several test modules share."""

from pathlib import Path

import pytest
from commands import Outcome, Workshop, write_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A glob of 30 short texts."""
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared tokens, so that each tokenizer is trained once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def workshop(corpus: str, cache: Path, tmp_path: Path) -> Workshop:
    """A corpus and an empty folder for runs."""
    return Workshop(corpus, cache, tmp_path / "runs")


@pytest.fixture(scope="session")
def finished(
    corpus: str, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workshop, Outcome]:
    """A run called `done` of 4 epochs, to look at and not to touch."""
    shop = Workshop(corpus, cache, tmp_path_factory.mktemp("finished"))
    often = ("--trainer.log_every_n_steps", "5", "--padding_guard.every_n_steps", "5")
    return shop, shop.fit("done", "--trainer.max_epochs", "4", *often)
