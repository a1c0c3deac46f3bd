"""Text to tokens on disk: the same files as ever, in one pass, whole or not at all."""

import errno
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from workshop import write_corpus

from lightning_embed.errors import UserError
from lightning_embed.sources.files import FilesCorpus
from lightning_embed.sources.source import About, Document
from lightning_embed.tokens import encoding, lock, trained
from lightning_embed.tokens.prepared import Prepared, open_prepared, prepare
from lightning_embed.tokens.token_files import Report, SplitSize
from lightning_embed.tokens.tokenizer import TextTokenizer
from lightning_embed.tokens.trained import suggested_vocabulary


class Made:
    """A source of given documents that counts how often it is read."""

    fingerprint = "made"

    def __init__(self, documents: list[Document]) -> None:
        self.all, self.read = documents, 0

    def documents(self, about: About) -> Iterator[Document]:
        self.read += 1
        about.title = "made up"
        about.counts["exact copies"] = 3
        yield from self.all
        about.note_set_aside()


def documents(number: int = 60) -> list[Document]:
    """Of every seven, two are held out; sources repeat, some of them in one split alone."""
    return [
        Document(f"text {i} of ä number {i * i}\n", f"s{i % 7}", i % 7 in (0, 3) or i == 9)
        for i in range(number)
    ]


def made(source: Any, cache: Path, tokenizer: str = "characters") -> Prepared:
    return open_prepared(prepare(source, cache, tokenizer=tokenizer, vocab_size=None))


def contents(found: Prepared) -> dict[str, bytes]:
    files = (path for path in found.path.rglob("*") if path.is_file())
    return {str(path.relative_to(found.path)): path.read_bytes() for path in files}


# -- the same files as ever ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "tokenizer", "key", "digest"),
    [
        (30, "bpe", "80162064d3f68e02", "059601edadd8e7e8"),
        (30, "characters", "b93bbe85a23a2746", "1cbd735a7100267b"),
        (7, "bpe", "c5884292b46841c7", "e22f1309d7515126"),
    ],
)
def test_files_are_those_of_version_0_1(
    tmp_path: Path, number: int, tokenizer: str, key: str, digest: str
) -> None:
    """A corpus split by name and one split by size, read and encoded in two passes then."""
    source = FilesCorpus((write_corpus(tmp_path / "text", number),))
    found = made(source, tmp_path / "cache", tokenizer)
    hashed = hashlib.sha256()
    for split in (found.train, found.validation):
        tokens = split.tokens.astype(np.uint16)  # of characters they are uint8 now
        for column in (tokens, split.offsets, split.n_bytes, split.source):
            hashed.update(str(column.dtype).encode() + column.tobytes())
        hashed.update(split.text_file.read_bytes())
    hashed.update(json.dumps(found.report.sources).encode())
    assert (found.key, hashed.hexdigest()[:16]) == (key, digest)


def test_a_report_of_version_0_1_is_read(tmp_path: Path) -> None:
    size = {"documents": 1, "bytes": 2, "tokens": 3, "unknown": 0}
    old = {
        "key": "k",
        "title": "t",
        "counts": {"train bytes": 2},
        "notes": ["n"],
        "vocabulary": 300,
        "vocabulary asked": 512,
        "splits": {"train": size, "validation": size},
        "sources": ["a.txt"],
    }
    (tmp_path / "report.json").write_text(json.dumps(old, indent=1))
    report = Report.load(tmp_path)
    assert report.vocabulary_asked == 512 and report.splits["train"] == SplitSize(1, 2, 3, 0)
    report.save(tmp_path)
    assert json.loads((tmp_path / "report.json").read_text()) == old


# -- in one pass -----------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", ["characters", "bpe", "bpe-portable"])
def test_splits_may_come_in_any_order(tmp_path: Path, tokenizer: str) -> None:
    mixed = Made(documents())
    in_order = Made(sorted(mixed.all, key=lambda document: document.held_out))
    one, two = (made(s, tmp_path / str(n), tokenizer) for n, s in enumerate((mixed, in_order)))
    assert mixed.read == in_order.read == 1
    counted = {"report.json", "checksums.json"}  # which follow the order that sources are met in
    assert {k: v for k, v in contents(one).items() if k not in counted} == {
        k: v for k, v in contents(two).items() if k not in counted
    }
    assert one.report.sources == ["s1", "s2", "s4", "s5", "s6", "s0", "s3"]  # train's first
    kept = [document for document in mixed.all if document.held_out]
    names = [one.report.sources[number] for number in one.validation.source]
    assert names == [document.source for document in kept]
    assert one.validation.text_file.read_text("utf-8") == "".join(d.text for d in kept)
    assert one.validation.n_bytes.tolist() == [len(d.text.encode()) for d in kept]
    first, second = one.validation.offsets[1:3]
    assert one.tokenizer.decode(one.validation.tokens[first:second]) == kept[1].text
    assert one.report.counts["validation documents"] == len(kept) == one.validation.documents
    assert one.report.notes == ["set aside: 3 exact copies"]
    size = one.report.splits["validation"]
    assert size.tokens == len(one.validation.tokens) and size.bytes == sum(one.validation.n_bytes)


def test_batches_are_bounded_and_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Made(documents())
    whole = made(source, tmp_path / "a", "bpe")
    monkeypatch.setattr(encoding, "DOCUMENTS_AT_ONCE", 7)
    monkeypatch.setattr(encoding, "CHARACTERS_AT_ONCE", 60)
    sizes = [len(batch) for batch in encoding._batches(source.all)]
    assert max(sizes) <= 3 and sum(sizes) == 60
    assert contents(made(source, tmp_path / "b", "bpe")) == contents(whole)


def training_text(
    monkeypatch: pytest.MonkeyPatch, given: list[Document], block: int, characters: int
) -> list[str]:
    monkeypatch.setattr(trained, "TRAINING_BLOCK", block)
    monkeypatch.setattr(trained, "TRAINING_CHARACTERS", characters)
    return [d.text for d in trained.training_part(given) if not d.held_out]


def test_a_tokenizer_is_trained_on_whole_blocks_of_the_train_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = [Document("x" * 10, "s", held_out=i % 3 == 0) for i in range(60)]  # 40 to train on
    for characters, blocks in ((0, 1), (69, 1), (70, 2), (139, 2), (140, 3), (279, 4), (280, 5)):
        texts = training_text(monkeypatch, given, 7, characters)
        assert len(texts) == 7 * blocks, characters
    assert len(training_text(monkeypatch, given, 7, 350)) == 40  # a block that is never full


def test_what_is_read_for_a_tokenizer_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the training text ends early, the rest is encoded as it is read."""
    given = documents(200)
    trained_on: list[str] = []
    train = TextTokenizer.train

    def noting(texts: Iterator[str], vocab_size: int, *, portable: bool) -> TextTokenizer:
        trained_on[:] = texts
        return train(trained_on, vocab_size, portable=portable)

    monkeypatch.setattr(TextTokenizer, "train", noting)
    results = []
    for held in (10**6, 300, 0):
        wanted = training_text(monkeypatch, given, 5, 1_000)
        monkeypatch.setattr(trained, "HELD_CHARACTERS", held)
        source = Made(given)
        results.append(contents(made(source, tmp_path / str(held), "bpe")))
        assert trained_on == wanted and 30 < len(wanted) < 100
        # more than may be held: read for the tokenizer, and once more for the tokens
        assert source.read == (1 if held > 1_000 else 2)
    assert results[0] == results[1] == results[2]


def test_a_text_longer_than_trains_a_tokenizer_has_the_largest_vocabulary() -> None:
    """So the suggestion is right also where only the beginning of a text has been read."""
    assert suggested_vocabulary(trained.TRAINING_CHARACTERS) == suggested_vocabulary(10**15)
    assert trained.HELD_CHARACTERS > trained.TRAINING_CHARACTERS


@pytest.mark.parametrize(("limit", "kept"), [(0, False), (10**9, True)])
def test_text_is_kept_of_small_corpora(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, kept: bool
) -> None:
    monkeypatch.setattr(encoding, "KEEP_TEXT_UP_TO", limit)
    found = made(Made(documents()), tmp_path)
    assert found.train.text_file.exists() == found.validation.text_file.exists() == kept


def test_unknown_tokens_are_counted(tmp_path: Path) -> None:
    given = [Document("aab", "s"), Document("abcc", "s", held_out=True)]
    found = made(Made(given), tmp_path)
    assert found.report.splits["train"].unknown == 0
    assert found.report.splits["validation"].unknown == 2


# -- whole or not at all ---------------------------------------------------------------------


def failing() -> Iterator[Document]:
    yield from documents()
    raise UserError("no more")


def ended() -> Iterator[Document]:
    yield from documents()
    raise SystemExit(143)  # what a signal becomes


def only_training() -> Iterator[Document]:
    yield Document("text", "s")


@pytest.mark.parametrize("tokenizer", ["characters", "given"])
@pytest.mark.parametrize("source", [failing, ended, only_training])
def test_nothing_is_left_of_what_is_not_whole(
    tmp_path: Path, source: Callable[[], Iterator[Document]], tokenizer: str
) -> None:
    if tokenizer == "given":
        tokenizer = str(tmp_path / "tokenizer.json")
        TextTokenizer.characters(["abc"]).save(tokenizer)
    broken = Made([])
    broken.documents = lambda about: source()  # type: ignore[method-assign]
    with pytest.raises((UserError, SystemExit)):
        made(broken, tmp_path / "cache", tokenizer)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_second_call_reads_no_text(tmp_path: Path) -> None:
    source = Made(documents())
    first = prepare(source, tmp_path, tokenizer="bpe", vocab_size=None)
    again = prepare(source, tmp_path, tokenizer="bpe", vocab_size=None)
    assert first == again and source.read == 1
    assert prepare(source, tmp_path, tokenizer="bpe", vocab_size=300) != first


def test_where_files_cannot_be_locked_another_process_may_be_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_locks(file: IO[bytes]) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "_lock", no_locks)
    source = Made(documents())

    def late(about: About) -> Iterator[Document]:
        made(Made(source.all), tmp_path, "bpe")
        yield from source.all

    slow = Made([])
    slow.documents = late  # type: ignore[method-assign]
    found = made(slow, tmp_path, "bpe")
    assert [path.name for path in tmp_path.iterdir()] == [found.key]
    assert found.train.documents == np.sum([not d.held_out for d in source.all])
    assert "has no locks ([Errno 37] No locks available)" in capsys.readouterr().out
