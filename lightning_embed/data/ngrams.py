"""Numbers that tell n-grams of tokens, and whole documents, from one another.

    <s> a b c d </s>, n = 3   ->  a number for a b c and one for b c d
    a number of 64 bits       ->  equal where the tokens are equal, and else practically never

Tokens are looked at a block at a time, so that memory does not grow with the corpus. The ends of a
document are in no n-gram: what stands in the middle of another document is found there, too.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

BLOCK = 1 << 21  # tokens; takes about 70 MB
MULTIPLIER = 0x9E3779B97F4A7C15  # odd, as every factor here


class Ngrams(NamedTuple):
    """Of one block."""

    hash: np.ndarray  # (N,) uint64
    start: np.ndarray  # (N,) int64, where each begins in the token array, ascending
    n_tokens: int  # of the block


def ngrams(
    tokens: np.ndarray, offsets: np.ndarray, n: int, at_most: int = 2**64 - 1
) -> Iterator[Ngrams]:
    """All n-grams that lie within a document, block after block.

    Args:
        tokens: ids of all documents in a row.
        offsets: `(documents + 1,)` where each document begins.
        n: tokens in an n-gram.
        at_most: only those whose number is no larger: a sample that is the same for every text.
    """
    for begin in range(0, len(tokens) - n + 1, BLOCK):
        hashes = _rolled(tokens[begin : begin + BLOCK + n - 1], n)
        usable = hashes <= np.uint64(at_most)
        inner = slice(*np.searchsorted(offsets, (begin, begin + len(hashes) + n)))
        for shift in range(-n, 1):  # those with an end of a document in them
            at = offsets[inner] + (shift - begin)
            usable[at[(at >= 0) & (at < len(usable))]] = False
        chosen = np.flatnonzero(usable)
        yield Ngrams(hashes[chosen], chosen + begin, len(hashes))


def document_hashes(tokens: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """`(documents,)` uint64, a number for each document as a whole."""
    sums = np.zeros(len(offsets) - 1, np.uint64)
    for begin in range(0, len(tokens), BLOCK):
        block = tokens[begin : begin + BLOCK].astype(np.uint64)
        first = int(np.searchsorted(offsets, begin, "right")) - 1
        last = int(np.searchsorted(offsets, begin + len(block), "left"))
        bounds = np.clip(offsets[first : last + 1] - begin, 0, len(block))
        place = np.arange(begin, begin + len(block), dtype=np.uint64)
        place -= np.repeat(offsets[first:last].astype(np.uint64), np.diff(bounds))
        sums[first:last] += np.add.reduceat(_mixed((place << np.uint64(32)) ^ block), bounds[:-1])
    return sums


def _rolled(tokens: np.ndarray, n: int) -> np.ndarray:
    """A number for each n-gram: a polynomial of its tokens, put together from those of shorter ones
    as n is from powers of two."""
    power = tokens.astype(np.uint64) + np.uint64(1)  # of 1, 2, 4, ... tokens
    found, taken = np.zeros(len(tokens) + 1, np.uint64), 0  # of none yet
    factor, length = MULTIPLIER, 1
    while True:
        if n & length:
            found = found[: len(found) - length] * np.uint64(factor) + power[taken:]
            taken += length
        if taken == n:
            return _mixed(found)
        power = power[:-length] * np.uint64(factor) + power[length:]
        factor, length = factor * factor % 2**64, length * 2


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Every bit depends on all bits (in place): the end of splitmix64."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        numbers ^= numbers >> np.uint64(shift)
        numbers *= np.uint64(factor)
    numbers ^= numbers >> np.uint64(31)
    return numbers
