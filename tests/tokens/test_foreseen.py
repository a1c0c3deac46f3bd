"""What is told of disk and time before a text is tokenised."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from lightning_embed.errors import UserError
from lightning_embed.sources.files import FilesCorpus
from lightning_embed.tokens import foreseen
from lightning_embed.tokens.foreseen import foresee
from lightning_embed.tokens.prepared import prepare

Usage = namedtuple("Usage", "total used free")


def a_text(folder: Path, size: int) -> FilesCorpus:
    (folder / "long.txt").write_text("so many words\n" * (size // 14))
    return FilesCorpus((str(folder / "long.txt"),))


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, size))


def test_a_disk_that_is_surely_too_small_is_refused_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = a_text(tmp_path, 1_400_000)
    free(monkeypatch, 100_000)
    with pytest.raises(UserError, match=r"1\.4 MB of text .*100\.0 kB are free.*cache_dir"):
        prepare(source, tmp_path / "cache", tokenizer="bpe", vocab_size=300)
    assert list((tmp_path / "cache").iterdir()) == []
    with pytest.raises(UserError, match=r"1\.0 MB of text .*100\.0 kB are free"):  # what is left
        foresee(source, tmp_path / "cache", "bpe", 300, written=400_000)
    foresee(source, tmp_path / "cache", "bpe", 300, written=1_000_000)
    free(monkeypatch, 500_000)  # less than it will take: who knows how well the text packs
    foresee(source, tmp_path / "cache", "bpe", 300)


def test_what_takes_long_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = a_text(tmp_path, 1_400_000)
    foresee(source, tmp_path, "bpe", 300)
    assert capsys.readouterr().out == ""
    free(monkeypatch, 5_000_000)
    monkeypatch.setattr(foreseen, "SMALL", 1_000_000)
    monkeypatch.setattr(foreseen, "preparation_seconds", lambda *_: 700.0)
    foresee(source, tmp_path, "bpe", 300)
    told = " ".join(capsys.readouterr().out.split())
    assert told.startswith("tokens 1.4 MB of text will take about 2.1 MB of disk (5.0 MB are free)")
    assert told.endswith("and 11:40, once")
    foresee(source, tmp_path, "bpe", 300, written=300_000)
    told = " ".join(capsys.readouterr().out.split())
    assert told.startswith("tokens 1.1 MB of text that are left will take about 1.6 MB of disk")
