"""Held-out documents that the training text has nearly as they are, and the training documents that
have them: a pure function of a corpus' tokens.

1. n-grams      of about 50 bytes, so many tokens as that takes; of the held-out text at most
                `MOST` different ones are kept, a sample by their numbers where there are more
2. seen         which of them are anywhere in the training text
3. compared     a held-out document with `SHARE` of its n-grams seen is compared with each training
                document; where one alone has `SHARE` of them, both are near-copies
4. wholes       documents that are equal as wholes, however short

Where MinHash estimates how much two sets have in common of all that either has, this counts how
much of a held-out document is in a training document, also in a much longer one. n-grams that many
held-out documents share are compared with the first `ALIKE` of those alone.

What was found is kept beside the tokens, so that a run that goes on does not search again.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np

from lightning_embed.atomic import replacing
from lightning_embed.bar import bar
from lightning_embed.data.ngrams import document_hashes, ngrams
from lightning_embed.data.windows import ranges
from lightning_embed.tokens.prepared import Prepared
from lightning_embed.tokens.token_files import Split

FORMAT = 1  # raise it when the same tokens would give other near-copies: runs that go on notice
FILE = "near_copies.npz"

BYTES = 50  # of text in an n-gram, about
SHARE = 0.8  # of a document's n-grams
LEAST = 20  # different n-grams of a document; of fewer a share means little
MOST = 6_000_000  # different n-grams of held-out text in memory, 40 bytes each
ALIKE = 16
AT_ONCE = 4_000_000  # pairs of an n-gram and a document
FILTER_BITS = 26  # at most, of a table of n-grams that are there: 64 MB


class NearCopies(NamedTuple):
    """What was found; documents are numbered within their split.

    Attributes:
        n: tokens in an n-gram.
        too_short: held-out documents that are compared as wholes alone.
        sample: share of all held-out n-grams that were looked for.
        seen: share of those that are anywhere in the training text.
        mostly_seen: held-out documents with `SHARE` of their n-grams anywhere in it: near-copies,
            and what is put together from several documents.
        held_out: `(pairs,)` those with a near-copy in training, the most alike first.
        train: `(pairs,)` the training document most like each.
        share: `(pairs,)` of the held-out document's n-grams that are in it.
        left_out: all training documents that are near-copies, sorted ascending.
        copies: training documents that are equal to an earlier one.
    """

    n: int
    too_short: int
    sample: float
    seen: float
    mostly_seen: int
    held_out: np.ndarray
    train: np.ndarray
    share: np.ndarray
    left_out: np.ndarray
    copies: int


def near_copies(prepared: Prepared) -> NearCopies:
    """Those of a corpus, searched for unless they are kept beside its tokens."""
    path = prepared.path / FILE
    found = _kept(path)
    if found is None:
        found = search(prepared.train, prepared.validation)
        with suppress(OSError), replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, format=FORMAT, **found._asdict())
    return found


def _kept(path: Path) -> NearCopies | None:
    """What an earlier search has found; None where there was none, or its file is damaged."""
    damaged = (OSError, ValueError, KeyError, BadZipFile, EOFError, zlib.error)
    with suppress(*damaged), np.load(path, allow_pickle=False) as file:
        if int(file["format"]) == FORMAT:
            values = {name: file[name] for name in NearCopies._fields}
            return NearCopies(**{k: v if v.ndim else v.item() for k, v in values.items()})
    return None


def search(train: Split, held_out: Split) -> NearCopies:
    """Compare the splits of a corpus; takes about ten seconds for a hundred million tokens."""
    n = ngram_length(train)
    index = Index.of(held_out, n)
    best = Best(held_out.documents, train.documents)
    seen = np.zeros(len(index.hash), bool)
    likely = np.zeros(held_out.documents, bool)
    if len(seen):
        with bar("near-copies", len(train.tokens)) as advance:
            for _, which, n_tokens in index.met(train, n):
                seen[which] = True
                advance(n_tokens)
        likely = (index.size >= LEAST) & (index.counts(seen) >= SHARE * index.size)
    if likely.any():
        _compare(train, index.only(likely), n, best)
    copies, equal = _compare_wholes(train, held_out, best)
    affected = np.flatnonzero(best.share)
    affected = affected[np.argsort(-best.share[affected], kind="stable")]
    return NearCopies(
        n=n,
        too_short=int((index.size < LEAST).sum()),
        sample=index.at_most / (2**64 - 1),
        seen=float(seen.mean()) if len(seen) else 0.0,
        mostly_seen=int(likely.sum()),
        held_out=affected,
        train=best.train[affected],
        share=best.share[affected],
        left_out=np.flatnonzero(best.left_out | equal),
        copies=copies,
    )


def ngram_length(split: Split) -> int:
    """Tokens that about `BYTES` of text take; at least 5."""
    n_bytes = max(1, int(split.n_bytes.sum()))
    return max(5, min(BYTES, round(BYTES * len(split.tokens) / n_bytes)))


class Best:
    """The most alike training document of each held-out one so far, and which are near-copies."""

    def __init__(self, held_out: int, train: int) -> None:
        self.share = np.zeros(held_out)
        self.train = np.full(held_out, -1, np.int64)
        self.left_out = np.zeros(train, bool)

    def take(self, held_out: np.ndarray, train: np.ndarray, share: np.ndarray) -> None:
        """Near-copies; of equal shares the earliest training document stays."""
        self.left_out[train] = True
        order = np.lexsort((-train, share))  # what is written last stays
        held_out, train, share = held_out[order], train[order], share[order]
        better = share > self.share[held_out]
        self.share[held_out[better]] = share[better]
        self.train[held_out[better]] = train[better]


class Index(NamedTuple):
    """Which held-out documents have an n-gram.

    Attributes:
        hash: `(H,)` different n-grams, sorted ascending.
        bounds: `(H + 1,)` where the documents of each begin.
        document: `(entries,)` documents with it, ascending.
        size: `(documents,)` different n-grams of each document.
        at_most: numbers of n-grams in the sample.
    """

    hash: np.ndarray
    bounds: np.ndarray
    document: np.ndarray
    size: np.ndarray
    at_most: int

    @classmethod
    def of(cls, split: Split, n: int) -> Index:
        at_most = min(2**64 - 1, int(MOST / max(1, len(split.tokens)) * 2**64))
        hashes, documents = [np.zeros(0, np.uint64)], [np.zeros(0, np.int32)]
        for block in ngrams(split.tokens, split.offsets, n, at_most):
            hashes.append(block.hash)
            documents.append(_documents_at(block.start, split.offsets).astype(np.int32))
        hash, document = np.concatenate(hashes), np.concatenate(documents)
        del hashes, documents
        order = np.argsort(hash, kind="stable")
        hash, document = hash[order], document[order]
        del order
        different = _begins(hash) | _begins(document)
        return cls._made(hash[different], document[different], split.documents, at_most)

    @classmethod
    def _made(cls, hash: np.ndarray, document: np.ndarray, documents: int, at_most: int) -> Index:
        first = np.flatnonzero(_begins(hash))
        size = np.bincount(document, minlength=documents)
        return cls(hash[first], np.append(first, len(hash)), document, size, at_most)

    def counts(self, which: np.ndarray) -> np.ndarray:
        """`(documents,)` how many n-grams of each are among those of a mask `(H,)`."""
        those = np.repeat(which, np.diff(self.bounds))
        return np.bincount(self.document[those], minlength=len(self.size))

    def only(self, documents: np.ndarray) -> Index:
        """The n-grams of some documents, a mask; each with at most `ALIKE` of them."""
        its = documents[self.document]
        hash = np.repeat(self.hash, np.diff(self.bounds))[its]
        alike = np.diff(np.append(np.flatnonzero(_begins(hash)), len(hash)))
        few = ranges(np.zeros_like(alike), alike) < ALIKE
        made = self._made(hash[few], self.document[its][few], len(self.size), self.at_most)
        return made._replace(size=self.size)

    def met(self, split: Split, n: int) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
        """Where in the token array of a split these n-grams begin, and which of `hash` they are;
        and how many tokens that was, block after block."""
        bits = min(FILTER_BITS, len(self.hash).bit_length() + 6)
        shift = np.uint64(64 - bits)
        there = np.zeros(1 << bits, bool)  # most that are not in the index end here
        there[self.hash >> shift] = True
        for block in ngrams(split.tokens, split.offsets, n, self.at_most):
            maybe = np.flatnonzero(there[block.hash >> shift])
            hash = block.hash[maybe]
            which = np.minimum(np.searchsorted(self.hash, hash), len(self.hash) - 1)
            equal = self.hash[which] == hash
            yield block.start[maybe[equal]], which[equal], block.n_tokens


def _begins(values: np.ndarray) -> np.ndarray:
    """Whether each value differs from the one before."""
    return np.concatenate([np.ones(min(1, len(values)), bool), values[1:] != values[:-1]])


def _documents_at(starts: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    return np.searchsorted(offsets, starts, "right") - 1


def _compare(train: Split, index: Index, n: int, best: Best) -> None:
    """Find the near-copies among documents of the index and training documents."""
    width = len(index.hash)
    with bar("near-copies", len(train.tokens)) as advance:
        waiting = np.zeros(0, np.int64)  # of a document that goes on in the next block
        for starts, which, n_tokens in index.met(train, n):
            documents = _documents_at(starts, train.offsets)
            pairs = np.unique(np.concatenate([waiting, documents * width + which]))
            last = pairs[-1] // width if len(pairs) else 0
            done = np.searchsorted(pairs, last * width)
            _count(pairs[:done], index, best)
            waiting = pairs[done:]
            advance(n_tokens)
        _count(waiting, index, best)


def _count(pairs: np.ndarray, index: Index, best: Best) -> None:
    """Take account of whole training documents; `pairs` of a document and a different n-gram are
    sorted ascending."""
    train, which = np.divmod(pairs, len(index.hash))
    each = np.diff(index.bounds)[which]
    firsts = np.flatnonzero(_begins(train))
    ends = np.cumsum(each)  # of the held-out documents that each pair stands for
    before = np.append(ends - each, ends[-1:])
    begin = 0
    while begin < len(firsts):  # as many training documents as are counted at once
        room = before[firsts[begin]] + AT_ONCE
        end = max(begin + 1, int(np.searchsorted(before[firsts], room)))
        part = slice(firsts[begin], firsts[end] if end < len(firsts) else len(pairs))
        numbers = ranges(index.bounds[which[part]], each[part])
        key = np.repeat(train[part], each[part]) * len(index.size) + index.document[numbers]
        key, count = np.unique(key, return_counts=True)
        its_train, held_out = np.divmod(key, len(index.size))
        share = count / index.size[held_out]
        alike = share >= SHARE
        best.take(held_out[alike], its_train[alike], share[alike])
        begin = end


def _compare_wholes(train: Split, held_out: Split, best: Best) -> tuple[int, np.ndarray]:
    """How many training documents are equal to an earlier one; and a mask of those that are equal
    to a held-out one."""
    ours = document_hashes(train.tokens, train.offsets)
    theirs = document_hashes(held_out.tokens, held_out.offsets)
    different, first = np.unique(ours, return_index=True)
    if len(different):
        place = np.minimum(np.searchsorted(different, theirs), len(different) - 1)
        equal = np.flatnonzero(different[place] == theirs)
        best.take(equal, first[place[equal]], np.ones(len(equal)))
    return len(ours) - len(different), np.isin(ours, theirs)
