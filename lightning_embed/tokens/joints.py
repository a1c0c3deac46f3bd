"""Where parts of a long document meet: the same tokens as if it were encoded whole, or counted.

Whether a cut changes the tokens is asked of the tokenizer, with a few hundred characters on either
side. Where it does, the cut is moved to the next place that might do. What a tokenizer puts before
every text is not put before a part that goes on with one (`TextTokenizer.encode_documents`).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from lightning_embed.sources.source import Document
from lightning_embed.tokens.reading import PLACES

WINDOW = 300  # characters on either side
TRIES = 64
SEARCH = 50_000  # characters in which a better place is looked for
NEXT_PLACE = re.compile("|".join(PLACES))
CUTS, CHANGED = "cuts in long documents", "cuts that change tokens"

Encode = Callable[[str], list[int]]


def fitted(
    documents: Iterable[Document], encode: Encode, counts: Counter[str]
) -> Iterator[Document]:
    """The same documents, parts cut where the tokens stay the same as far as there is such a place.

    Args:
        documents: long ones in parts.
        encode: gives the ids of what does not begin a text.
        counts: takes the number of cuts, and of those that may change tokens.
    """
    before: Document | None = None
    for document in documents:
        if before is None:
            pass
        elif before.ends:
            yield before
        else:
            counts[CUTS] += 1
            moved = first_exact(before.text, document.text, encode)
            if moved is None:
                counts[CHANGED] += 1
                moved = 0
            yield before._replace(text=before.text + document.text[:moved])
            document = document._replace(text=document.text[moved:])
        before = document
    if before is not None:
        yield before


def first_exact(left: str, right: str, encode: Encode) -> int | None:
    """How many characters of `right` to move to `left`, so that both have the tokens they have
    together; None if no such place was found."""
    base = min(len(left), WINDOW)
    both = left[-base:] + right[: SEARCH + WINDOW]
    tried = 0
    place = base
    while tried < TRIES:
        ends, begins = both[max(0, place - WINDOW) : place], both[place : place + WINDOW]
        if encode(ends + begins) == [*encode(ends), *encode(begins)]:
            return place - base
        found = NEXT_PLACE.search(both, place)
        if found is None or found.end() >= min(len(both), base + SEARCH):
            return None
        place, tried = found.end(), tried + 1
    return None
