"""Near-copies of held-out documents: found as by hand, kept, and left out of training."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from workshop import Workshop

from lightning_embed.data import near_copies as module
from lightning_embed.data import ngrams
from lightning_embed.data.datamodule import TextDataModule
from lightning_embed.data.decontaminating import without
from lightning_embed.data.near_copies import LEAST, SHARE, NearCopies, near_copies, search
from lightning_embed.data.ngrams import document_hashes
from lightning_embed.data.windows import cut_windows
from lightning_embed.errors import UserError
from lightning_embed.tokens.prepared import open_prepared
from lightning_embed.tokens.token_files import Split

Documents = list[list[int]]


def split(documents: Documents) -> Split:
    """Documents without their ends; a token is about 5 bytes, so an n-gram has 10."""
    ended = [[0, *document, 2] for document in documents]
    lengths = [len(document) for document in ended]
    return Split(
        np.array([token for document in ended for token in document], np.uint16),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.array(lengths, np.int64) * 5,
        np.zeros(len(documents), np.int64),
        Path("nowhere"),
    )


def grams(document: list[int], n: int = 10) -> set[tuple[int, ...]]:
    return {tuple(document[at : at + n]) for at in range(len(document) - n + 1)}


def by_hand(train: Documents, held_out: Documents) -> tuple[dict[int, float], set[int]]:
    """The largest share of each held-out document that has a near-copy, and all of those."""
    best, left_out = dict[int, float](), set[int]()
    for number, document in enumerate(held_out):
        its = grams(document)
        for other, text in enumerate(train):
            share = len(its & grams(text)) / len(its) if len(its) >= LEAST else 0.0
            if share >= SHARE or text == document:
                share = 1.0 if text == document else share
                best[number] = max(best.get(number, 0.0), share)
                left_out.add(other)
    return best, left_out


def corpus(seed: int) -> tuple[Documents, Documents]:
    """Documents that share pieces, at the beginning, in the middle, changed here and there."""
    draw = random.Random(seed)
    pieces = [[draw.randint(4, 60) for _ in range(draw.randint(5, 90))] for _ in range(20)]

    def one() -> list[int]:
        text = [token for _ in range(draw.randint(1, 4)) for token in draw.choice(pieces)]
        for _ in range(draw.choice([0, 0, 1, 5])):
            text[draw.randrange(len(text))] = draw.randint(4, 60)
        return text

    return [one() for _ in range(60)], [one() for _ in range(25)]


@pytest.mark.parametrize("block", [37, 1000])
@pytest.mark.parametrize("seed", range(4))
def test_the_same_are_found_as_by_hand(
    seed: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a block is, and however many pairs are counted at once."""
    monkeypatch.setattr(ngrams, "BLOCK", block)
    monkeypatch.setattr(module, "AT_ONCE", block)
    monkeypatch.setattr(module, "ALIKE", 1000)
    train, held_out = corpus(seed)
    shares, left_out = by_hand(train, held_out)
    assert shares and len(left_out) < len(train)
    found = search(split(train), split(held_out))
    assert dict(zip(found.held_out.tolist(), found.share.tolist(), strict=True)) == shares
    assert found.left_out.tolist() == sorted(left_out)
    assert found.share.tolist() == sorted(found.share, reverse=True)
    for number, other, share in zip(found.held_out, found.train, found.share, strict=True):
        its = grams(held_out[number])
        assert (
            train[other] == held_out[number] or len(its & grams(train[other])) / len(its) == share
        )
    anywhere = set().union(*map(grams, train))
    assert found.too_short == sum(len(grams(x)) < LEAST for x in held_out)
    everything = set().union(*map(grams, held_out))
    assert found.seen == len(anywhere & everything) / len(everything)
    mostly = [x for x in map(grams, held_out) if len(x) >= LEAST]
    assert found.mostly_seen == sum(len(x & anywhere) >= SHARE * len(x) for x in mostly)
    assert found.copies == sum(n - 1 for n in Counter(map(tuple, train)).values())


def test_a_copy_within_a_longer_document_is_found() -> None:
    draw = random.Random(1)
    text = [draw.randint(4, 999) for _ in range(60)]
    other = [draw.randint(4, 999) for _ in range(5000)]
    found = search(split([other, other[:800] + text + other[800:]]), split([text, other[:10]]))
    assert (found.held_out.tolist(), found.train.tolist()) == ([0], [1])
    assert found.share.tolist() == [1.0] and found.left_out.tolist() == [1]


def test_short_documents_are_compared_as_wholes() -> None:
    found = search(split([[5, 6, 7], [5, 6], [5, 6, 7], list(range(4, 90))]), split([[5, 6, 7]]))
    assert found.left_out.tolist() == [0, 2] and found.train.tolist() == [0]
    assert (found.too_short, found.copies, found.mostly_seen) == (1, 1, 0)


def test_many_that_are_alike_are_all_left_out() -> None:
    """More than are compared with one another, though not all held-out ones are named."""
    draw = random.Random(2)
    text = [draw.randint(4, 999) for _ in range(100)]
    many = [[*text[:place], 3, *text[place + 1 :]] for place in range(100)]
    found = search(split([*many[::2], many[0][::-1]]), split(many[1::2]))
    assert found.left_out.tolist() == list(range(50))
    assert found.mostly_seen == 50 and 0 < len(found.held_out) <= 50


def test_a_sample_stands_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(3)
    texts = [[draw.randint(4, 999) for _ in range(2000)] for _ in range(10)]
    monkeypatch.setattr(module, "MOST", 8_000)
    found = search(split(texts), split([*texts[:5], [token + 1 for token in texts[9]]]))
    assert sorted(found.held_out.tolist()) == [0, 1, 2, 3, 4]
    assert found.sample == pytest.approx(8_000 / (6 * 2002))
    assert found.seen == pytest.approx(5 / 6, abs=0.02)


@pytest.mark.parametrize("documents", [[], [[]], [[5]], [[5], []]])
def test_next_to_nothing_to_compare(documents: Documents) -> None:
    for one, other in ((documents, [[5, 6]]), ([[5, 6]], documents)):
        found = search(split(one), split(other))
        assert not len(found.held_out) and not len(found.left_out) and found.seen == 0


def test_documents_are_told_apart_by_order_and_place(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [[5, 6], [6, 5], [5, 6, 5], [5, 6], [5], [], [1] * 9, [1] * 10]
    its = split(texts)
    whole = document_hashes(its.tokens, its.offsets)
    assert len(set(whole.tolist())) == len(texts) - 1 and whole[0] == whole[3]
    monkeypatch.setattr(ngrams, "BLOCK", 3)
    assert document_hashes(its.tokens, its.offsets).tolist() == whole.tolist()


# -- of a prepared corpus ---------------------------------------------------------------------


def data_of(workshop: Workshop, tmp_path: Path, **settings: object) -> TextDataModule:
    """Lines of text, of which the last are copied with a word changed from earlier ones."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghij", k=5)) for _ in range(200)]
    lines = [" ".join(draw.choices(words, k=60)) for _ in range(40)]
    lines += [f"{line[:200]}changed{line[207:]}" for line in lines[3:6]]
    file = tmp_path / "lines.txt"
    file.write_text("\n".join(lines), encoding="utf-8")
    return TextDataModule(
        files=str(file),
        document="line",
        vocab_size=400,
        max_length=32,
        tokens_per_batch=256,
        cache_dir=str(workshop.cache),
        **settings,  # type: ignore[arg-type]
    )


def test_what_was_found_is_kept(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_of(workshop, tmp_path)
    first = near_copies(data.prepared)
    assert first.left_out.tolist() == [3, 4, 5]
    file = data.prepared.path / module.FILE
    whole = file.read_bytes()
    for damaged in (whole[:100], whole[:-9], b"", whole.replace(b"left_out", b"leftXout")):
        file.write_bytes(damaged)
        assert near_copies(data.prepared).left_out.tolist() == [3, 4, 5]
        assert file.read_bytes() != damaged

    def fail(*splits: Split) -> NearCopies:
        raise AssertionError("searched again")

    monkeypatch.setattr(module, "search", fail)
    again = near_copies(open_prepared(data.prepared.path))
    for name, value in first._asdict().items():
        assert np.array_equal(getattr(again, name), value) and type(value) is type(
            getattr(again, name)
        )


def test_near_copies_are_in_no_batch(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = data_of(workshop, tmp_path)
    data = data_of(workshop, tmp_path, decontaminate=True)
    assert data.prepared.key == plain.prepared.key
    loader = data.train_dataloader()
    assert "note     left out: 3 of 39 training documents" in capsys.readouterr().out
    used = {int(n) for n in loader.rows.windows.document}
    assert used == set(range(plain.prepared.train.documents)) - {3, 4, 5}
    lengths = np.diff(plain.prepared.train.offsets) - 1
    assert data.unique_targets == plain.unique_targets - lengths[3:6].sum()
    assert sum(batch.global_targets for batch in loader) == data.unique_targets
    assert data.targets_per_step * data.batches_per_epoch == pytest.approx(data.unique_targets)
    steps = range(1, data.batches_per_epoch + 1)
    named = {name for step in steps for name in data.documents_of_step(step)}
    assert len(named) == len(used) and not any("(document 4)" in name for name in named)
    assert data.plan_settings == plain.plan_settings | {"decontaminate": True}
    assert "decontaminate" not in plain.plan_settings
    assert len(plain.eval_windows()) == len(data.eval_windows())


def test_no_windows_are_copied_where_none_are_left_out() -> None:
    windows = cut_windows(np.array([0, 5, 9]), 4)
    assert without(windows, np.zeros(0, np.int64)) is windows
    assert without(windows, np.array([1])).document.tolist() == [0]
    assert without(windows, np.array([0])).document.tolist() == [1]


def test_nothing_left_to_train_on_is_refused(tmp_path: Path, workshop: Workshop) -> None:
    class Same:
        fingerprint = "all the same"

        def documents(self, about):  # type: ignore[no-untyped-def]
            from lightning_embed.sources.source import Document

            about.title = "one poem"
            for held_out in (False, False, True):
                yield Document("roses are red, violets are blue", "poem", held_out=held_out)

    data = TextDataModule(
        source=Same(), tokenizer="characters", cache_dir=str(workshop.cache), decontaminate=True
    )
    with pytest.raises(UserError, match=r"all 2 training documents .* leave out --data\.decontam"):
        data.train_dataloader()
