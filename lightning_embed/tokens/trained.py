"""The tokenizer of a text: one that is given, or one trained on the beginning of the text."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import TypeAlias

import numpy as np

from lightning_embed.bar import bar
from lightning_embed.console import say
from lightning_embed.interrupts import Later, heeded_later
from lightning_embed.sources.source import About, Document, Source, counted, drained, utf8_size
from lightning_embed.tokens.reading import read
from lightning_embed.tokens.tokenizer import TextTokenizer

TRAINED = ("bpe", "bpe-portable", "characters")  # kinds made here, all others are given
TokenizerChoice: TypeAlias = str | TextTokenizer

# Which text trains a tokenizer must never change: whole blocks of the train split's documents, from
# the first on, up to the block in which so many characters are exceeded.
TRAINING_CHARACTERS = 100_000_000
TRAINING_BLOCK = 2_000
HELD_CHARACTERS = 200_000_000  # of that text kept in memory, and used of a single document


def suggested_vocabulary(n_bytes: int) -> int:
    """A vocabulary that fits a text: the power of two next to one id for 2,000 bytes."""
    return int(2 ** np.clip(np.round(np.log2(max(n_bytes, 1) / 2000)), 9, 15))


def given_tokenizer(tokenizer: TokenizerChoice) -> TextTokenizer | None:
    if isinstance(tokenizer, TextTokenizer):
        return tokenizer
    return None if tokenizer in TRAINED else TextTokenizer.load(tokenizer)


def with_tokenizer(
    source: Source,
    kind: str,
    vocab_size: int | None,
    keep: Callable[[TextTokenizer, int | None], None],
) -> tuple[TextTokenizer, int | None, About, Iterator[Document]]:
    """A tokenizer trained on the beginning of a source; the vocabulary asked for, if that is a
    choice; and the whole source's documents, to be encoded now. `keep` is called with the first two
    before a signal that came meanwhile is heeded."""
    about = About()
    documents = read(source, about)
    training = training_part(documents)
    with bar("reading", size_of(source)) as advance:
        held = deque(counted(_at_most(training, HELD_CHARACTERS), advance))
        beyond = list(islice(training, 1))
    # of a longer text the beginning suffices: the suggestion is as large as it can be
    size = sum(utf8_size(document.text) for document in held if not document.held_out)
    asked = vocab_size or suggested_vocabulary(size)
    choice = None if kind == "characters" else asked
    with bar("training the tokenizer") as advance, heeded_later(say_stopping) as signals:
        shown = counted(chain(held, beyond, training), advance)
        texts = (document.text for document in shown if not document.held_out)
        made = trained_on(signals.until(texts), kind, asked)
        keep(made, choice)
    if beyond:  # too much to hold was read for the tokenizer alone, so it is all read again
        held.clear()
        about = About()
        documents = read(source, about)
    return made, choice, about, chain(drained(held), documents)


def say_stopping(signal: str, signals: Later) -> None:
    """At once: the library, which asks for texts in threads of its own, stops at the next text, but
    not where it has them all."""
    rest = " once the tokenizer is made, which nothing interrupts; a second one ends at once"
    say("stopping", f"by {signal}{rest if signals.fed else ''}")


def trained_on(texts: Iterable[str], kind: str, vocab_size: int) -> TextTokenizer:
    """A tokenizer of a kind in `TRAINED`; of characters there are as many as the text has."""
    if kind == "characters":
        return TextTokenizer.characters(texts)
    return TextTokenizer.train(texts, vocab_size, portable=kind == "bpe-portable")


def training_part(documents: Iterable[Document]) -> Iterator[Document]:
    """The beginning of a corpus, up to the last document, or part of a document longer than may be
    held, that its tokenizer is trained on."""
    number = characters = own = 0
    for document in documents:
        yield document
        if not document.held_out:
            number += document.ends
            characters += len(document.text)
            own = len(document.text) + (0 if document.begins else own)
            if not document.ends and own > HELD_CHARACTERS:
                return
            is_full = document.ends and number % TRAINING_BLOCK == 0
            if is_full and characters > TRAINING_CHARACTERS:
                return


def _at_most(documents: Iterator[Document], characters: int) -> Iterator[Document]:
    """Documents until those of the training part have more than so many characters."""
    for document in documents:
        yield document
        characters -= 0 if document.held_out else len(document.text)
        if characters < 0:
            return


def size_of(source: Source) -> Callable[[], int]:
    """Asks for the bytes of a text, which may take reading it; 0 where nobody knows."""
    return lambda: getattr(source, "n_bytes", 0)
