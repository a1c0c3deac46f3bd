"""Several named sources as one corpus: order, names, splits, and what is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reading import read_all

from lightning_embed.errors import UserError
from lightning_embed.sources.corpus import choose_source, to_score
from lightning_embed.sources.files import FilesCorpus
from lightning_embed.sources.mixed import Mixed
from lightning_embed.sources.source import About, Document
from lightning_embed.tokens.held_out_again import HeldOutAgain
from lightning_embed.tokens.prepared import open_prepared, prepare
from lightning_embed.tokens.trained import training_part


class Texts:
    """So many documents of so many characters, each tenth held out."""

    def __init__(self, letter: str, documents: int, length: int) -> None:
        self.letter, self.count, self.length = letter, documents, length
        self.fingerprint = f"{letter} {documents} {length}"

    def documents(self, about: About) -> Iterator[Document]:
        about.title = f"{self.count} texts"
        about.counts["files"] = self.count
        about.notes.append("noted")
        for number in range(self.count):
            text = self.letter * self.length + str(number)
            yield Document(text, f"{number}.txt", held_out=number % 10 == 9)


def test_the_beginning_is_of_equal_parts_and_the_rest_follows() -> None:
    few = Texts("f", 12, 9)
    mixed = Mixed({"long": Texts("l", 40, 400), "short": Texts("s", 400, 40), "few": few})
    corpus = read_all(mixed)
    assert len(corpus.texts) == 452
    names = [name.partition(": ")[0] for name in corpus.train_sources]
    sizes = {
        name: sum(len(t) for t, own in zip(corpus.train[:150], names, strict=False) if own == name)
        for name in ("long", "short", "few")
    }
    assert abs(sizes["long"] - sizes["short"]) <= 410
    assert names[:150].count("few") == 11  # all there are
    order = [n for n in corpus.train_sources if n.startswith("short")]
    assert order[:2] == ["short: 0.txt", "short: 1.txt"]
    assert corpus.validation_sources.count("few: 9.txt") == 1
    assert corpus.title == "long: 40 texts; short: 400 texts; few: 12 texts"
    assert corpus.counts["files"] == 452 and "few: noted" in corpus.notes


def test_pieces_of_a_document_stay_together(tmp_path: Path) -> None:
    """The line between the splits cuts a document, whose parts are documents of their own."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"{name} text " * 99)
    mixed = choose_source(
        sources={name: {"files": str(tmp_path / f"{name}.txt")} for name in ("a", "b")}
    )
    corpus = read_all(mixed)
    assert corpus.train_sources == ["a: a.txt", "b: b.txt"] == corpus.validation_sources
    assert "b: held out: the last 10 % of the text" in corpus.notes
    assert len(list(training_part(mixed.documents(About())))) == 4


def test_prepared_tokens_know_their_named_sources(tmp_path: Path) -> None:
    mixed = Mixed({"x": Texts("l", 20, 40), "y": Texts("s", 30, 40)})
    folder = prepare(mixed, tmp_path, tokenizer="characters", vocab_size=None)
    prepared = open_prepared(folder)
    report = prepared.report
    assert report.named == ["x", "y"]
    named = report.named_of_source[prepared.train.source]
    assert (named == 0).sum() == 18 and (named == 1).sum() == 27
    about = About()
    again = [document.source for document in HeldOutAgain(prepared).documents(about)]
    assert about.named == ["x", "y"] and again[0] == "x: 9.txt"
    alone = prepare(Texts("l", 20, 40), tmp_path, tokenizer="characters", vocab_size=None)
    assert open_prepared(alone).report.named == []
    assert '"named"' not in (alone / "report.json").read_text()


def test_its_fingerprint_is_of_names_and_sources() -> None:
    one, two = Texts("l", 20, 40), Texts("s", 30, 40)
    found = [Mixed(x).fingerprint for x in ({"a": one, "b": two}, {"a": two, "b": one}, {"a": one})]
    assert len(set(found)) == 3 and found[0] == Mixed({"a": one, "b": two}).fingerprint


def test_options_are_those_of_one_text() -> None:
    mine = Texts("l", 20, 40)
    options = {"files": ["a.txt", "b"], "document": "line", "split": "end", "validation_share": 0.2}
    found = choose_source(sources={"a": options, "mine": mine, "python": {}})
    assert isinstance(found, Mixed) and list(found.sources) == ["a", "mine", "python"]
    assert found.sources["a"] == choose_source(**options) and found.sources["mine"] is mine  # type: ignore[arg-type]
    scored = to_score(Mixed({"a": FilesCorpus(("x",))}))
    assert isinstance(scored, Mixed) and scored.sources["a"] == FilesCorpus(("x",), whole=True)


@pytest.mark.parametrize(
    ("sources", "why"),
    [
        ({}, "--data.sources is empty"),
        ({"a": {"file": "x"}}, r"--data\.sources\.a has no option file \(did you mean files\?\)"),
        ({"a": {"zzz": "x"}}, r"has no option zzz: it has files, hub, "),
        ({"a": {"source": "x"}}, r"has no option source"),
        ({"a": None}, r"--data\.sources\.a is None: give its options"),
        ({"a: b": {"files": "x"}}, "letters, digits, - and _ alone"),
        ({"a": {"files": 3}}, "a.files cannot be 3: give a text or a list of texts"),
        ({"a": {"files": "x", "document": "lin"}}, "'lin': give file or line or paragraph or"),
        ({"a": {"files": "x", "validation_share": True}}, "cannot be True: give a number"),
        ({"a": {"files": "x", "hub": "y"}}, r"--data.sources a: give only one of"),
        ({"a": {"files": "x", "document": "separator"}}, "a: --data.document separator needs"),
    ],
)
def test_what_is_refused(sources: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=why):
        choose_source(sources=sources)


def test_a_source_without_training_text_is_named(tmp_path: Path) -> None:
    empty = Texts("l", 0, 1)
    with pytest.raises(UserError, match=r"--data\.sources y: 0 texts leaves no text to train on"):
        read_all(Mixed({"x": Texts("l", 20, 40), "y": empty}))
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00")
    bad = choose_source(sources={"bad": {"files": str(tmp_path)}, "x": Texts("l", 20, 40)})
    with pytest.raises(UserError, match=r"--data\.sources bad: .*bad\.txt"):
        read_all(bad)
