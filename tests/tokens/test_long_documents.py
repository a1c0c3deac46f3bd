"""Long documents are encoded in parts and have the tokens of the whole."""

import json
import random
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from lightning_embed.sources import files, texts
from lightning_embed.sources.files import FilesCorpus
from lightning_embed.sources.source import About, Document
from lightning_embed.special_tokens import SPECIAL_TOKENS
from lightning_embed.tokens import joints, reading, trained
from lightning_embed.tokens.joints import CHANGED, CUTS, Encode, fitted
from lightning_embed.tokens.prepared import open_prepared, prepare
from lightning_embed.tokens.reading import in_parts
from lightning_embed.tokens.tokenizer import TextTokenizer

PIECES = [
    *("foo", "bar", "Hello", "don't", "'s", "123", "4567", "über", "A\u0301", "你好", "。", "²"),
    *("x_y_", "{", ");", ".\n", ",\n", "_\n", "==", "🙂", "\u2028", "\x0c", "\x1c", "\0", "-"),
    *(" ", "  ", "\n", "\r\n", "\n\n", "\n    ", "\t\n", " \n"),
]
TEXTS = st.lists(st.sampled_from(PIECES), min_size=20, max_size=120).map("".join)
BYTES = pre_tokenizers.ByteLevel
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.fixture(autouse=True)
def small_parts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "LONGEST_WHOLE", 60)
        patch.setattr(reading, "PART", 30)
        yield


def corpus() -> list[str]:
    draw = random.Random(0)
    return ["".join(draw.choices(PIECES, k=200)) for _ in range(100)]


def foreign(pre_tokenizer: Any, normalizer: Any = None) -> Encode:
    tokenizer = Tokenizer(models.BPE())
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(BYTES.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def ordinary(words: int) -> str:
    some = ("def", "the", "x_1", "don't", "(a,", "b);", "über.", "17", "\n", "\n    ", "'quoted'")
    return " ".join(random.Random(1).choices(some, k=words))


ENCODERS: dict[str, Encode] = {}


def encoder(name: str) -> Encode:
    if name not in ENCODERS:
        ENCODERS[name] = {
            "bpe": lambda: TextTokenizer.train(corpus(), 600).encode,
            "portable": lambda: TextTokenizer.train(corpus(), 600, portable=True).encode,
            "characters": lambda: TextTokenizer.characters(corpus()[:20]).encode,
            "gpt2": lambda: foreign(BYTES(add_prefix_space=False)),
            "prefix space": lambda: foreign(BYTES(add_prefix_space=True)),
            "cl100k": lambda: foreign(
                pre_tokenizers.Sequence(
                    [
                        pre_tokenizers.Split(Regex(CL100K), "isolated"),
                        BYTES(add_prefix_space=False, use_regex=False),
                    ]
                )
            ),
            "metaspace": lambda: foreign(pre_tokenizers.Metaspace(prepend_scheme="first")),
            "bert": lambda: foreign(
                pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer()
            ),
            "prepends": lambda: foreign(
                None,
                normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
            ),
        }[name]()
    return ENCODERS[name]


NAMES = [
    *("bpe", "portable", "characters", "gpt2", "prefix space", "cl100k", "metaspace", "bert"),
    "prepends",
]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_tokens_are_those_of_the_whole_or_the_cut_is_counted(name: str, text: str) -> None:
    encode, counts = encoder(name), Counter[str]()
    parts = list(fitted(in_parts([Document(text, "t")]), encode, counts))
    assert "".join(part.text for part in parts) == text
    assert counts[CUTS] == len(parts) - 1
    whole = [id for part in parts for id in encode(part.text)] == encode(text)
    assert whole or counts[CHANGED]
    assert name != "characters" or not counts[CHANGED]
    assert name != "prepends" or counts[CHANGED] == counts[CUTS]


@pytest.mark.parametrize("name", ["bpe", "portable", "gpt2", "cl100k", "metaspace", "bert"])
def test_in_ordinary_text_no_cut_changes_tokens(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PART", 200)
    counts, text = Counter[str](), ordinary(6_000)
    parts = list(fitted(in_parts([Document(text, "t")]), encoder(name), counts))
    assert [id for part in parts for id in encoder(name)(part.text)] == encoder(name)(text)
    assert counts[CUTS] > 100 and not counts[CHANGED]


@given(st.lists(TEXTS, min_size=1, max_size=4), st.data())
def test_parts_do_not_depend_on_the_pieces_of_a_source(
    whole: list[str], data: st.DataObject
) -> None:
    given_whole = [Document(text, str(n), n % 2 == 1) for n, text in enumerate(whole)]
    in_pieces = list[Document]()
    for document in given_whole:
        text = document.text
        places = data.draw(st.sets(st.integers(1, max(1, len(text) - 1)), max_size=5))
        ends = [0, *sorted(places - {len(text)}), len(text)]
        for start, stop in pairwise(ends):
            in_pieces.append(
                document._replace(text=text[start:stop], begins=start == 0, ends=stop == len(text))
            )
    parts = list(in_parts(given_whole))
    assert list(in_parts(in_pieces)) == parts
    assert max(len(part.text) for part in parts) <= reading.LONGEST_WHOLE
    joined = Counter[str]()
    for part in parts:
        joined[part.source] += part.begins
    assert set(joined.values()) == {1} and "".join(p.text for p in parts) == "".join(whole)


def test_a_run_without_a_place_to_cut_is_cut_anyway() -> None:
    parts = list(in_parts([Document("x" * 100, "t")]))
    assert [len(part.text) for part in parts] == [30, 30, 30, 10]
    assert [part.begins for part in parts] == [True, False, False, False]
    assert [part.ends for part in parts] == [False, False, False, True]


# -- from a file to tokens -----------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", ["bpe", "characters"])
@pytest.mark.parametrize("suffix", ["txt", "jsonl"])
@pytest.mark.parametrize("held", [10**6, 0])
def test_prepared_files_are_the_same_with_and_without_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: str, suffix: str, held: int
) -> None:
    text = ordinary(600)
    for n in range(3):
        short = f"{text[: 400 + 500 * n]}{n}"
        line = json.dumps({"text": short}) + "\n" if suffix == "jsonl" else short
        (tmp_path / f"{n}.{suffix}").write_text(line, encoding="utf-8", newline="")

    def made(name: str) -> tuple[dict[str, bytes], Counter[str]]:
        source = FilesCorpus((str(tmp_path / f"*.{suffix}"),))
        folder = prepare(source, tmp_path / name, tokenizer=tokenizer, vocab_size=400)
        counts = Counter(open_prepared(folder).report.counts)
        of_splits = {str(p.relative_to(folder)): p.read_bytes() for p in folder.glob("*/*")}
        return of_splits | {"t": (folder / "tokenizer.json").read_bytes()}, counts

    in_parts_files, counts = made("parts")
    assert counts[CUTS] > 20 and not counts[CHANGED]
    monkeypatch.setattr(reading, "LONGEST_WHOLE", 10**9)
    whole, plain = made("whole")
    assert in_parts_files == whole and counts == plain + Counter({CUTS: counts[CUTS]})
    monkeypatch.setattr(reading, "LONGEST_WHOLE", 60)
    monkeypatch.setattr(texts, "BLOCK", 50)  # and files read in pieces, again where long
    monkeypatch.setattr(files, "HELD_DOCUMENT", held)
    assert made("pieces") == (in_parts_files, counts)


def test_cuts_that_change_tokens_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("some words and more " * 50)
    monkeypatch.setattr(joints, "first_exact", lambda left, right, encode: None)
    source = FilesCorpus((str(tmp_path / "a.txt"),))
    folder = prepare(source, tmp_path / "cache", tokenizer="bpe", vocab_size=300)
    report = open_prepared(folder).report
    assert report.counts[CHANGED] == report.counts[CUTS] > 20
    assert report.notes[-1].startswith("long documents are encoded in parts; at ")


def test_a_long_document_that_changes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "BLOCK", 50)
    monkeypatch.setattr(files, "HELD_DOCUMENT", 100)
    path = tmp_path / "a.txt"
    path.write_text("some words and more " * 50)
    documents = FilesCorpus((str(path),)).documents(About())
    next(documents)
    path.write_text("other words and more " * 50)
    with pytest.raises(ValueError, match=r"a\.txt changed while it was read: begin again"):
        list(documents)


def test_of_one_endless_document_a_tokenizer_sees_the_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trained, "HELD_CHARACTERS", 100)
    parts = in_parts([Document("some words " * 100, "t")])
    seen = sum(len(part.text) for part in trained.training_part(parts))
    assert 100 < seen <= 130
