"""Text that its tokens do not give back: an uncased tokenizer loses capital letters, one that splits
at white space loses line ends, one without bytes loses what it does not know.

The first documents are encoded and decoded, then a few of each batch, so that a corpus of any size
costs little. Bits per byte of such a text leave out what was lost: they compare runs with the same
tokenizer, but neither runs with another one nor xz.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from lightning_embed.sources.source import Document
from lightning_embed.tokens.token_files import CHECKED, LOST
from lightning_embed.tokens.tokenizer import TextTokenizer

FIRST = 200_000  # characters that are decoded of the first batch
LATER = 20_000  # of each later one
LONGEST = 20_000  # of a document: a longer one is left to others

# What tokenizers lose, and a text that shows it. Each is tried by itself.
PROBES = {
    "capital letters": "The LAST one",
    "accents": "caf\u00e9 na\u00efve",
    "digits": "0123456789",
    "line ends": "one\ntwo\r\nthree",
    "tabs": "one\ttwo",
    "repeated spaces": "one  two   three",
    "spaces at the beginning": " one",
    "spaces beside punctuation": "f(x), y; z.",
    "other scripts": "\u4f60\u597d \u0416\u0449",
    "emoji": "\U0001f642",
}


def losses(tokenizer: TextTokenizer) -> list[str]:
    """What a tokenizer loses, in a few words each; nothing where all text comes back."""
    return [name for name, text in PROBES.items() if not tokenizer.gives_back(text)]


def look(
    documents: Sequence[Document],
    ids: Iterable[np.ndarray],
    tokenizer: TextTokenizer,
    counts: Counter[str],
) -> None:
    """Decode some documents of a batch, and count those that are then other texts.

    Args:
        documents: of the batch; parts of long ones are passed over.
        ids: of each, with `<s>` and `</s>`.
        tokenizer: that made them.
        counts: of the corpus; takes how many were decoded, and how many of them differ.
    """
    room = LATER if counts[CHECKED] else FIRST
    for document, its in zip(documents, ids, strict=True):
        if not (document.begins and document.ends) or len(document.text) > LONGEST:
            continue
        if room <= 0:
            break
        room -= len(document.text)
        counts[CHECKED] += 1
        counts[LOST] += tokenizer.decode(its) != document.text


def note(counts: Counter[str], tokenizer: TextTokenizer) -> str:
    """One line about what was found; empty where all documents came back."""
    if not counts[LOST]:
        return ""
    what = ", ".join(losses(tokenizer))
    return (
        f"the tokenizer does not give back {counts[LOST]:,} of the {counts[CHECKED]:,} documents"
        f" that were decoded{f': it loses {what}' if what else ''}"
    )
