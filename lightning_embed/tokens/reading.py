"""Reading a source: its documents counted, long ones in parts that can be encoded one by one.

A part ends between a letter or digit and white space, at a line's end where there is one: in no
pattern that splits text for BPE does a piece reach across that place, nor does what stands on one
side decide how the other is split. `joints.py` checks it with the tokenizer itself.
"""

import re
from collections.abc import Iterable, Iterator

from lightning_embed.errors import UserError
from lightning_embed.sources.source import About, Document, Source, utf8_size

LONGEST_WHOLE = 2_000_000  # characters; a longer document comes in parts
PART = 250_000  # characters at most; encoding takes about 75 bytes of memory for each
LETTER = r"[^\W_]"  # or digit; `_` is punctuation, which takes line ends after it along
PLACES = (rf"{LETTER}(?=\r?\n)", rf"{LETTER}(?=\s)", rf"{LETTER}(?=[\W_])")  # best first
LAST_PLACE = [re.compile(f"(?s:.*){place}") for place in PLACES]


def read(source: Source, about: About) -> Iterator[Document]:
    """The documents of a source, counted, long ones in parts.

    Raises:
        UserError: at the end, where a split that is wanted has no text.
    """
    counts = about.counts
    for document in in_parts(source.documents(about)):
        size = utf8_size(document.text)
        split = "validation" if document.held_out else "train"
        counts["documents"] += document.begins
        counts["bytes"] += size
        counts[f"{split} documents"] += document.begins
        counts[f"{split} bytes"] += size
        about.items += 1
        yield document
    about.complete = True
    for split in ("validation",) if about.whole else ("train", "validation"):
        if not counts[f"{split} bytes"]:
            raise UserError(
                f"{about.title} is too small: of {counts['bytes']:,} bytes none are left for "
                f"{split}; give more with --data.files"
            )


def in_parts(documents: Iterable[Document]) -> Iterator[Document]:
    """Documents whole, and those beyond `LONGEST_WHOLE` in parts of at most `PART` characters.

    The parts do not depend on the pieces that a source gives.
    """
    text, begins, is_long = "", True, False
    for document in documents:
        if document.begins:
            text, begins, is_long = "", True, False
        text = text + document.text if text else document.text
        is_long = is_long or len(text) > LONGEST_WHOLE
        start = 0
        while is_long and len(text) - start > PART:
            stop = cut_before(text, start, start + PART)
            yield document._replace(text=text[start:stop], begins=begins, ends=False)
            start, begins = stop, False
        text = text[start:]
        if document.ends:
            yield document._replace(text=text, begins=begins)


def cut_before(text: str, start: int, stop: int) -> int:
    """Where to cut a text that goes on beyond `stop`: in the second half from `start`."""
    for place in LAST_PLACE:
        found = place.match(text, (start + stop) // 2, stop + 1)
        if found:
            return found.end()
    return stop
