"""Near-copies between training and held-out text, by name and with a few words of each."""

from dataclasses import dataclass

import numpy as np

from lightning_embed.data.near_copies import BYTES, LEAST, SHARE, near_copies
from lightning_embed.inspecting.documents import snippet
from lightning_embed.tokens.prepared import Prepared

WORST = 5


@dataclass(frozen=True)
class Pair:
    """A held-out document and the training document most like it.

    Attributes:
        share: of the held-out document's n-grams that are in the training document.
    """

    share: float
    held_out: int
    held_out_source: str
    train: int
    train_source: str
    text: str


@dataclass(frozen=True)
class Copies:
    """What was found.

    Attributes:
        held_out: held-out documents with a near-copy in training.
        held_out_share: of all held-out documents.
        train: training documents that are near-copies of held-out ones.
        train_token_share: of all training tokens.
        too_short: held-out documents that are compared as wholes alone.
        sample: share of the held-out n-grams that were looked for.
        seen: share of those that are anywhere in the training text.
        mostly_seen: held-out documents with `threshold` of their n-grams anywhere in it.
        exact_in_train: training documents equal to an earlier one.
        ngram: tokens in an n-gram.
        least_ngrams: that a document needs to be judged.
        threshold: share of n-grams that makes a near-copy.
        ngram_bytes: that an n-gram is about.
        worst: the most alike.
    """

    held_out: int
    held_out_share: float
    train: int
    train_token_share: float
    too_short: int
    sample: float
    seen: float
    mostly_seen: int
    exact_in_train: int
    ngram: int
    least_ngrams: int
    threshold: float
    ngram_bytes: int
    worst: list[Pair]


def copies(prepared: Prepared) -> Copies:
    """Those of a corpus."""
    found = near_copies(prepared)
    train, held_out, names = prepared.train, prepared.validation, prepared.report.sources
    left_out = int(np.diff(train.offsets)[found.left_out].sum())
    pairs = zip(found.share[:WORST], found.held_out[:WORST], found.train[:WORST], strict=True)
    return Copies(
        held_out=len(found.held_out),
        held_out_share=len(found.held_out) / max(1, held_out.documents),
        train=len(found.left_out),
        train_token_share=left_out / max(1, len(train.tokens)),
        too_short=found.too_short,
        sample=found.sample,
        seen=found.seen,
        mostly_seen=found.mostly_seen,
        exact_in_train=found.copies,
        ngram=found.n,
        least_ngrams=LEAST,
        threshold=SHARE,
        ngram_bytes=BYTES,
        worst=[
            Pair(
                share=float(share),
                held_out=int(one),
                held_out_source=names[held_out.source[one]],
                train=int(other),
                train_source=names[train.source[other]],
                text=snippet(prepared, held_out, int(one)),
            )
            for share, one, other in pairs
        ],
    )
