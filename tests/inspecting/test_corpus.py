"""Sizes, lengths and ids of a corpus are those that counting gives."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lightning_embed.inspecting import corpus as module
from lightning_embed.inspecting.corpus import lengths, vocabulary
from lightning_embed.inspecting.documents import chosen, shown, snippet
from lightning_embed.sources.source import About, Document
from lightning_embed.tokens.prepared import Prepared, open_prepared, prepare

TEXTS = ["abcabca", "bbb", "a" * 30, "c", "cab" * 9]
HELD_OUT = ["abxx", "ay", "x"]


class Letters:
    """A source of a few letters, some of which are only held out."""

    fingerprint = "letters"

    def documents(self, about: About) -> Iterator[Document]:
        about.title = "letters"
        for number, text in enumerate(TEXTS):
            yield Document(text, f"train {number}")
        for text in HELD_OUT:
            yield Document(text, "held out", held_out=True)


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    cache = tmp_path_factory.mktemp("cache")
    return open_prepared(prepare(Letters(), cache, tokenizer="characters", vocab_size=None))


def test_sizes_are_of_each_split(letters: Prepared) -> None:
    found = letters.report.splits
    assert list(found) == ["train", "validation"]
    assert found["train"].bytes == sum(map(len, TEXTS))
    assert found["train"].tokens == found["train"].bytes + 2 * len(TEXTS)
    assert found["train"].bytes_per_token == found["train"].bytes / found["train"].tokens
    assert found["validation"].unknown == 4 and found["train"].unknown == 0


def test_a_histogram_has_every_document_once(letters: Prepared) -> None:
    each = sorted(len(text) + 2 for text in TEXTS)
    found = lengths(letters.train, np.zeros(0, np.int64))
    assert found is not None
    assert (found.shortest, found.median, found.longest) == (3, 9, 32) and found.nine_of_ten == 29
    assert found.mean == sum(each) / len(each)
    assert found.edges == [2, 4, 8, 16, 32, 64] and found.counts == [1, 1, 1, 1, 1]
    for low, high, count in zip(found.edges, found.edges[1:], found.counts, strict=False):
        assert count == sum(low <= length < high for length in each)
    without = lengths(letters.train, np.array([2]))
    assert without is not None and without.longest == 29 and sum(without.counts) == len(TEXTS) - 1
    assert lengths(letters.train, np.arange(len(TEXTS))) is None


def test_ids_are_counted(letters: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 7)
    found = vocabulary(letters)
    counts = Counter("".join(TEXTS))
    assert found.ids == 7 and found.never_used == 0
    told = {each["piece"]: each["count"] for each in found.most_used}
    assert told == dict(counts) and list(told.values()) == sorted(told.values(), reverse=True)
    assert found.unknown_in == [{"source": "held out", "count": 4}]
    monkeypatch.setattr(module, "COUNTED", 9)
    assert vocabulary(letters).counted == 9
    assert {x["piece"]: x["count"] for x in vocabulary(letters).most_used} == {
        "a": 3,
        "b": 2,
        "c": 2,
    }


def test_ids_that_training_never_has(letters: Prepared, tmp_path: Path) -> None:
    class Other(Letters):
        fingerprint = "other letters"

        def documents(self, about: About) -> Iterator[Document]:
            about.title = "others"
            yield Document("aaa", "one")
            yield Document("abcbc", "two", held_out=True)

    folder = prepare(Other(), tmp_path, tokenizer=letters.tokenizer, vocab_size=None)
    found = vocabulary(open_prepared(folder))
    assert found.never_used == 2 and found.not_trained == 2 and found.not_trained_tokens == 4
    assert [x["piece"] for x in found.some_not_trained] == ["b", "c"]


def test_a_document_is_shown_with_its_ends(
    letters: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = shown(letters, letters.train, 0)
    assert found.text == "abcabca" and (found.tokens, found.bytes) == (9, 7)
    assert found.pieces == ["<s>", *"abcabca", "</s>"] and len(found.ids) == 9
    assert (found.ids[0], found.ids[-1], found.source) == (0, 2, "train 0")
    assert shown(letters, letters.validation, 0).text == "ab<unk><unk>"
    assert snippet(letters, letters.train, 1) == "bbb"
    monkeypatch.setattr("lightning_embed.inspecting.documents.SHOWN", 4)
    cut = shown(letters, letters.train, 0)
    assert (cut.text, cut.pieces, cut.tokens) == ("abc", ["<s>", "a", "b", "c"], 9)


def test_documents_are_the_first_or_drawn() -> None:
    none = np.zeros(0, np.int64)
    assert chosen(5, none, 3, None) == [0, 1, 2]
    assert chosen(5, np.array([0, 2]), 2, None) == [1, 3]
    assert chosen(2, none, 9, None) == [0, 1] and chosen(5, none, 0, 1) == []
    drawn = [tuple(chosen(100, np.arange(50), 3, seed)) for seed in range(5)]
    assert len(set(drawn)) > 3 and min(map(min, drawn)) >= 50
    assert chosen(100, none, 3, 7) == chosen(100, none, 3, 7)
