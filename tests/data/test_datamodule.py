"""Which text a data module takes, and who reads it."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from workshop import Workshop

from lightning_embed.data.datamodule import TextDataModule
from lightning_embed.errors import UserError
from lightning_embed.sources.corpus import choose_source
from lightning_embed.sources.files import FilesCorpus
from lightning_embed.sources.hub import HubCorpus
from lightning_embed.sources.source import About, Document
from lightning_embed.sources.stdlib import StdlibCorpus


class Numbers:
    """A source of one's own.

    Args:
        last: how many texts there are.
    """

    def __init__(self, last: int = 40) -> None:
        self.last, self.hashed = last, 0

    @property
    def fingerprint(self) -> str:
        self.hashed += 1
        return f"numbers to {self.last}"

    def documents(self, about: About) -> Iterator[Document]:
        about.title = "numbers"
        for number in range(self.last):
            yield Document(f"{number} and {number + 1}", "numbers", held_out=number % 10 == 0)


def module(source: Numbers, cache: Path) -> TextDataModule:
    return TextDataModule(source=source, tokenizer="characters", cache_dir=str(cache))


def process(rank: int, key: str) -> Any:
    """A trainer as the process of this rank sees it; `key` is what the first one sends."""
    strategy = SimpleNamespace(broadcast=lambda own: own or key)
    return SimpleNamespace(global_rank=rank, is_global_zero=rank == 0, strategy=strategy)


def test_the_source_that_is_asked_for() -> None:
    mine = Numbers()
    assert choose_source() == StdlibCorpus()
    assert choose_source("a.txt", text_column="body") == FilesCorpus(("a.txt",), "body")
    assert choose_source(["a.txt", "b.txt"]) == FilesCorpus(("a.txt", "b.txt"))
    assert choose_source(hub="a/b", hub_config="c") == HubCorpus("a/b", "c")
    assert choose_source(source=mine) is mine
    with pytest.raises(UserError, match=r"only one of --data\.files a and --data\.hub b$"):
        TextDataModule(files="a", hub="b")
    with pytest.raises(UserError, match=r"only one of --data\.hub b and --data\.source "):
        TextDataModule(hub="b", source=mine)


def test_the_first_process_hashes_once_and_others_never(tmp_path: Path) -> None:
    first, second = Numbers(), Numbers()
    one, two = module(first, tmp_path), module(second, tmp_path)
    one.prepare_data()
    for data, rank in ((one, 0), (two, 1), (one, 0), (two, 1)):  # fit, then validate
        data.trainer = process(rank, one.prepared.key)
        if rank == 0:
            data.prepare_data()
        data.setup("fit")
        assert data.prepared.key == one.prepared.key
    assert (first.hashed, second.hashed) == (1, 0)
    assert two.prepared.report.title == "numbers"


def test_a_machine_without_the_tokens_is_told(tmp_path: Path) -> None:
    """Another text there, or a cache that is not shared: never another text without a word."""
    first, other = module(Numbers(), tmp_path / "a"), module(Numbers(), tmp_path / "b")
    other.trainer = process(8, first.prepared.key)
    with pytest.raises(UserError, match=rf"process 8 has no tokens .*{first.prepared.key}.*"):
        other.setup("fit")


def test_a_source_of_ones_own_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "poems.py").write_text(Path(__file__).read_text(encoding="utf-8"))
    shop = Workshop("null", tmp_path / "cache", tmp_path / "runs")
    told = shop.fit("mine", "--data.source", "poems.Numbers", "--data.source.last", "30", steps=2)
    assert told.line("corpus").startswith("numbers, 30 documents")
    told = shop.run("fit", "--data.source", "lightning_embed.sources.source.About")
    assert "protocol Source" in told.error_line()
