"""How much text there is, what was left out of it, how long its documents are, and which ids of the
vocabulary it uses."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_embed.recording.projector import labels
from lightning_embed.tokens.prepared import Prepared
from lightning_embed.tokens.token_files import Split

COUNTED = 100_000_000  # tokens of each split in which ids are counted
BLOCK = 1 << 22
NAMED = 8  # ids and files, of each kind


@dataclass(frozen=True)
class Lengths:
    """How long documents are, in tokens.

    Attributes:
        edges: where the bars of the histogram begin and the last one ends: powers of two.
        counts: documents in each bar.
    """

    shortest: int
    median: int
    mean: float
    nine_of_ten: int
    longest: int
    edges: list[int]
    counts: list[int]


def lengths(split: Split, left_out: np.ndarray) -> Lengths | None:
    """Of the documents that are not left out; None where there are none."""
    each = np.delete(np.diff(split.offsets), left_out)
    if not len(each):
        return None
    powers = np.bincount(np.frexp(each)[1] - 1)  # 2^p <= length < 2^(p + 1)
    first = int(np.flatnonzero(powers)[0])
    median, nine = np.percentile(each, [50, 90], method="lower").tolist()
    return Lengths(
        shortest=int(each.min()),
        median=median,
        mean=float(each.mean()),
        nine_of_ten=nine,
        longest=int(each.max()),
        edges=[2**power for power in range(first, len(powers) + 1)],
        counts=powers[first:].tolist(),
    )


@dataclass(frozen=True)
class Vocabulary:
    """Which ids the text uses.

    Attributes:
        ids: how many there are, the special ones among them.
        tokens: of training text.
        counted: how many of them were looked at, the first.
        never_used: ids that the training text does not have, without special ones.
        some_never_used: the first of them.
        not_trained: ids that held-out text has and training text does not.
        not_trained_tokens: held-out tokens with such an id.
        some_not_trained: the most frequent of them.
        most_used: the most frequent ids of training text.
        unknown_in: files with most unknown tokens, training and held-out ones.
    """

    ids: int
    tokens: int
    counted: int
    never_used: int
    some_never_used: list[dict[str, Any]]
    not_trained: int
    not_trained_tokens: int
    some_not_trained: list[dict[str, Any]]
    most_used: list[dict[str, Any]]
    unknown_in: list[dict[str, Any]]


def vocabulary(prepared: Prepared) -> Vocabulary:
    """Of a corpus; of a large one in its first `COUNTED` tokens."""
    tokenizer = prepared.tokenizer
    trained = _counts(prepared.train, tokenizer.vocab_size)
    held_out = _counts(prepared.validation, tokenizer.vocab_size)
    ordinary = np.ones(tokenizer.vocab_size, bool)
    for special in (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.unk_id):
        if special is not None:
            ordinary[special] = False
    never = np.flatnonzero(ordinary & (trained == 0))
    unseen = np.flatnonzero(ordinary & (trained == 0) & (held_out > 0))
    unseen = unseen[np.argsort(-held_out[unseen], kind="stable")]
    used = np.flatnonzero(ordinary & (trained > 0))
    used = used[np.argsort(-trained[used], kind="stable")]

    def named(ids: np.ndarray, counts: np.ndarray) -> list[dict[str, Any]]:
        texts = labels(tokenizer, ids[:NAMED].tolist())
        return [
            {"id": int(number), "piece": text, "count": int(counts[number])}
            for number, text in zip(ids[:NAMED], texts, strict=True)
        ]

    return Vocabulary(
        ids=tokenizer.vocab_size,
        tokens=len(prepared.train.tokens),
        counted=min(COUNTED, len(prepared.train.tokens)),
        never_used=len(never),
        some_never_used=named(never, trained),
        not_trained=len(unseen),
        not_trained_tokens=int(held_out[unseen].sum()),
        some_not_trained=named(unseen, held_out),
        most_used=named(used, trained),
        unknown_in=_unknown_in(prepared),
    )


def _counts(split: Split, vocab_size: int) -> np.ndarray:
    counts = np.zeros(vocab_size, np.int64)
    for _, block in _blocks(split.tokens[:COUNTED]):
        counts += np.bincount(block, minlength=vocab_size)
    return counts


def _unknown_in(prepared: Prepared) -> list[dict[str, Any]]:
    unknown = prepared.tokenizer.unk_id
    counts = np.zeros(len(prepared.report.sources), np.int64)
    for split, size in zip(
        (prepared.train, prepared.validation), prepared.report.splits.values(), strict=True
    ):
        if unknown is None or not size.unknown:
            continue
        for begin, block in _blocks(split.tokens[:COUNTED]):
            at = np.flatnonzero(block == unknown) + begin
            documents = np.searchsorted(split.offsets, at, "right") - 1
            counts += np.bincount(split.source[documents], minlength=len(counts))
    worst = np.argsort(-counts, kind="stable")[:NAMED]
    names = prepared.report.sources
    return [{"source": names[n], "count": int(counts[n])} for n in worst if counts[n]]


def _blocks(tokens: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for begin in range(0, len(tokens), BLOCK):
        yield begin, tokens[begin : begin + BLOCK]
