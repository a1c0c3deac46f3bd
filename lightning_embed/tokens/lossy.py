"""Text that its tokens do not give back: an uncased tokenizer loses capital letters, one that
splits at white space loses line ends, one without bytes loses what it does not know.

The first documents are decoded again, then a few, so that a corpus of any size costs little. Bits
per byte of such a text leave out what was lost: they compare runs with the same tokenizer, but
neither runs with another one nor xz.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from lightning_embed.sources.source import Document
from lightning_embed.tokens.token_files import CHECKED, LOST
from lightning_embed.tokens.tokenizer import TextTokenizer

FIRST, EACH = 100, 1_000  # documents that are decoded: the first, and then one of so many
LONGEST = 1_000  # ids of each
BEGUN = "documents encoded"

LOSSY = ", without what the tokenizer loses"  # behind such bits per byte
ONLY_AMONG_THEMSELVES = "compare them with this tokenizer's only: others, and xz, keep all text"

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
    found = [name for name, text in PROBES.items() if not tokenizer.gives_back(text)]
    unknown = any(tokenizer.unk_id in tokenizer.encode(PROBES[name]) for name in found)
    return [*found, "characters that it does not know"] if unknown else found


class Lossy:
    """Decodes how some documents begin, and counts those that are then other texts.

    Args:
        tokenizer: that encodes.
        counts: how many began, how many of them were decoded, and how many of those differ; taken
            up where a killed run left them.
    """

    def __init__(self, tokenizer: TextTokenizer, counts: Counter[str]) -> None:
        self.tokenizer, self.counts = tokenizer, counts

    def look(self, documents: Sequence[Document], ids: Iterable[np.ndarray]) -> None:
        """The next documents, or parts of long ones; `ids` of each, with or without `<s>`."""
        for document, its in zip(documents, ids, strict=True):
            if not document.begins:
                continue
            self.counts[BEGUN] += 1
            if self.counts[BEGUN] <= FIRST or self.counts[BEGUN] % EACH == 0:
                self.counts[CHECKED] += 1
                self.counts[LOST] += not self._comes_back(document.text, its)

    def _comes_back(self, text: str, ids: np.ndarray) -> bool:
        found = self.tokenizer.decode(ids[:LONGEST])
        if len(ids) <= LONGEST:
            return found == text
        found = found.rstrip("\N{REPLACEMENT CHARACTER}")  # cut in a character
        return bool(found) and text.startswith(found)

    @property
    def found(self) -> dict[str, int]:
        """How many were decoded, and how many of them are then other texts."""
        return {what: self.counts[what] for what in (CHECKED, LOST)}

    @property
    def note(self) -> str:
        """One line about what was found; empty where all came back."""
        if not self.counts[LOST]:
            return ""
        what = ", ".join(losses(self.tokenizer))
        return (
            f"the tokenizer does not give back {self.counts[LOST]:,} of the"
            f" {self.counts[CHECKED]:,} documents that were decoded"
            f"{f': it loses {what}' if what else ''}"
        )
