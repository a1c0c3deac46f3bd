"""How long a text takes to be tokenised: an estimate that grows with it."""

import os
from pathlib import Path

import pytest

from lightning_embed.sources.files import FilesCorpus
from lightning_embed.sources.stdlib import StdlibCorpus
from lightning_embed.tokens import preparing_time
from lightning_embed.tokens.preparing_time import SMALL, preparation_seconds
from lightning_embed.tokens.tokenizer import TextTokenizer


def a_file(path: Path, size: int) -> FilesCorpus:
    """Words, then a hole: large and quickly made."""
    path.write_text("words of a text, some of them new " * 3_000)
    os.truncate(path, size)
    return FilesCorpus((str(path),))


@pytest.mark.parametrize("tokenizer", ["bpe", "bpe-portable", "characters"])
def test_longer_texts_take_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: str
) -> None:
    monkeypatch.setattr(preparing_time, "SAMPLE", 100_000)
    one = preparation_seconds(a_file(tmp_path / "one", 2 * SMALL), tokenizer, 400)
    many = preparation_seconds(a_file(tmp_path / "many", 200 * SMALL), tokenizer, 400)
    assert 0 < one < many


def test_a_given_tokenizer_is_not_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing_time, "SAMPLE", 100_000)
    TextTokenizer.train(["some words"], 300).save(tmp_path / "tokenizer.json")
    monkeypatch.setattr(TextTokenizer, "train", None)
    source = a_file(tmp_path / "one", 2 * SMALL)
    assert preparation_seconds(source, str(tmp_path / "tokenizer.json"), None) > 0


def test_small_texts_take_no_sample(tmp_path: Path) -> None:
    assert preparation_seconds(a_file(tmp_path / "one", SMALL), "bpe", None) == 0
    assert preparation_seconds(StdlibCorpus(), "bpe", None) == 0
