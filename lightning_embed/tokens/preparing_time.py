"""How long a text takes to be tokenised on this machine, estimated from its size and a sample."""

import time
from typing import Any

from lightning_embed.sources.source import Source
from lightning_embed.tokens.tokenizer import TextTokenizer
from lightning_embed.tokens.trained import (
    TRAINED,
    TRAINING_CHARACTERS,
    TokenizerChoice,
    suggested_vocabulary,
    trained_on,
)

SMALL = 30_000_000  # bytes that take seconds, of which no sample is timed
SAMPLE, ENCODED = 4_000_000, 1_000_000  # characters that train a tokenizer, and of them encoded
DOCUMENT = 2_000  # characters


def preparation_seconds(
    source: Source, tokenizer: TokenizerChoice, vocab_size: int | None, done: int = 0
) -> float:
    """Seconds to train a tokenizer on the text and to encode it; 0 where the text is small or its
    size is not known before it is read. Of `done` bytes that are encoded, and their tokenizer,
    nothing is to be done again."""
    size: int = getattr(source, "n_bytes", 0)
    if size <= SMALL or not hasattr(source, "beginning"):
        return 0.0
    train = tokenizer in TRAINED
    text = source.beginning(SAMPLE if train else ENCODED)
    pieces = [text[at : at + DOCUMENT] for at in range(0, len(text), DOCUMENT)]
    began = time.perf_counter()
    made: Any
    if train:
        vocabulary = vocab_size or suggested_vocabulary(size)
        made = trained_on(pieces, str(tokenizer), vocabulary)
    else:
        made = TextTokenizer.load(tokenizer) if isinstance(tokenizer, str) else tokenizer
    trained = time.perf_counter()
    made.encode_documents(pieces[: ENCODED // DOCUMENT])
    encoded = time.perf_counter()
    shown = min(size, TRAINING_CHARACTERS) / SAMPLE if train and not done else 0.0
    return (trained - began) * shown + (encoded - trained) * (size - done) / ENCODED
