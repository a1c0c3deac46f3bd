"""Documents as text and as tokens: which id is which piece of text."""

from dataclasses import dataclass

import numpy as np

from lightning_embed.recording.projector import labels
from lightning_embed.tokens.prepared import Prepared
from lightning_embed.tokens.token_files import Split

SHOWN = 200  # tokens of a document
SNIPPET = 40  # tokens of a document that is only mentioned


@dataclass(frozen=True)
class Shown:
    """The beginning of a document.

    Attributes:
        number: in its split.
        source: the file it came from, or the like.
        bytes: of the whole document in UTF-8.
        tokens: of the whole document, `<s>` and `</s>` among them.
        text: of the tokens below, as the tokenizer gives it back.
        ids: its first tokens.
        pieces: what each of them stands for, unseen characters as signs.
    """

    number: int
    source: str
    bytes: int
    tokens: int
    text: str
    ids: list[int]
    pieces: list[str]


def chosen(documents: int, left_out: np.ndarray, count: int, draw: int | None) -> list[int]:
    """Numbers of the first documents that are not left out, or of some drawn at random."""
    used = np.delete(np.arange(documents), left_out)
    if draw is not None:
        used = np.random.default_rng(draw).permutation(used)
    return np.sort(used[:count]).tolist()


def shown(prepared: Prepared, split: Split, number: int) -> Shown:
    """A document's beginning."""
    begin, end = split.offsets[number : number + 2].tolist()
    ids = split.tokens[begin : min(end, begin + SHOWN)].tolist()
    return Shown(
        number=number,
        source=prepared.report.sources[split.source[number]],
        bytes=int(split.n_bytes[number]),
        tokens=end - begin,
        text=_text(prepared, split, begin, end, SHOWN),
        ids=ids,
        pieces=labels(prepared.tokenizer, ids),
    )


def snippet(prepared: Prepared, split: Split, number: int) -> str:
    """A few words that a document begins with."""
    begin, end = split.offsets[number : number + 2].tolist()
    return _text(prepared, split, begin, end, SNIPPET)


def _text(prepared: Prepared, split: Split, begin: int, end: int, most: int) -> str:
    """Without the ends of the document; what is unknown to the tokenizer has a sign."""
    inner = split.tokens[begin + 1 : min(end - 1, begin + most)].tolist()
    text = prepared.tokenizer.decode(inner, skip_special_tokens=False)
    return text.rstrip("\N{REPLACEMENT CHARACTER}")  # a part of a letter
