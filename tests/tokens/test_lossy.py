"""Tokenizers that lose text are noticed while a corpus is prepared, and counted."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tokenizer_kinds import kinds

from lightning_embed.sources.files import FilesCorpus
from lightning_embed.sources.source import Document
from lightning_embed.tokens import lossy
from lightning_embed.tokens.lossy import LONGEST, Lossy, losses
from lightning_embed.tokens.prepared import Prepared, open_prepared, prepare
from lightning_embed.tokens.token_files import CHECKED, LOST
from lightning_embed.tokens.tokenizer import TextTokenizer


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TextTokenizer]:
    return kinds(tmp_path_factory.mktemp("kinds"))


def test_what_a_tokenizer_loses(made: dict[str, TextTokenizer]) -> None:
    for name in ("bpe", "portable", "gpt2"):
        assert losses(made[name]) == []
    assert losses(made["llama2"]) == []
    assert losses(made["unigram_with_bytes"]) == ["spaces at the beginning"]
    lost = losses(made["bert"])
    assert {"capital letters", "accents", "line ends", "repeated spaces"} <= set(lost)
    assert lost[-1] == "characters that it does not know"


def looked(tokenizer: TextTokenizer, texts: list[str]) -> Lossy:
    found = Lossy(tokenizer, Counter())
    found.look([Document(text, "t") for text in texts], tokenizer.encode_documents(texts))
    return found


def test_some_documents_are_decoded_and_those_that_differ_counted(
    made: dict[str, TextTokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["apples and pears", "Apples", "the and"] * 50
    assert looked(made["bpe"], texts).found == {CHECKED: 100, LOST: 0}
    assert not looked(made["bpe"], texts).note
    monkeypatch.setattr(lossy, "EACH", 30)
    found = looked(made["bert"], texts)
    assert found.found == {CHECKED: 102, LOST: 33}  # the 120th and 150th are in small letters
    told = "the tokenizer does not give back 33 of the 102 documents that were decoded: it loses "
    assert found.note.startswith(f"{told}capital letters, accents")


def test_of_a_long_document_the_beginning_is_decoded(made: dict[str, TextTokenizer]) -> None:
    text = "\N{SLIGHTLY SMILING FACE}" * LONGEST  # cut within one
    assert looked(TextTokenizer.train([], 260), ["ab" + text]).found == {CHECKED: 1, LOST: 0}
    assert looked(made["bert"], ["the and\n" * LONGEST]).counts[LOST] == 1
    parts = [Document(text, "t", begins=False), Document("a", "t", ends=False)]
    found = Lossy(made["bpe"], Counter())
    found.look(parts, [np.array([9]), np.array(made["bpe"].encode("a"))])
    assert found.found == {CHECKED: 1, LOST: 0}


def prepared(folder: Path, tokenizer: TextTokenizer | str, text: str) -> Prepared:
    (folder / "a.txt").write_text(text)
    source = FilesCorpus((str(folder / "a.txt"),))
    return open_prepared(prepare(source, folder / "cache", tokenizer=tokenizer, vocab_size=None))


def test_a_corpus_says_whether_its_tokens_keep_the_text(
    made: dict[str, TextTokenizer], tmp_path: Path
) -> None:
    text = "".join(f"the {n} and\nof a\n" for n in range(300))
    report = prepared(tmp_path, made["gpt2"], text).report
    assert report.keeps_text and not report.notes[1:] and report.counts[CHECKED] == 2
    report = prepared(tmp_path, made["bert"], text).report
    assert not report.keeps_text and "it loses capital letters" in report.notes[-1]
    report = prepared(tmp_path, "characters", text).report
    assert report.keeps_text
    report = prepared(tmp_path, "characters", text + "~").report  # of which none was trained on
    assert not report.keeps_text and report.splits["validation"].unknown == 1
