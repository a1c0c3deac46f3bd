"""What preparing a text will take of disk and time, told before it is taken.

The estimates are for who waits; refused is only what cannot end well: text whose tokens, at more
bytes a token than any vocabulary has on the whole, would not fit.
"""

import shutil
from pathlib import Path

from lightning_embed.console import duration, say, short
from lightning_embed.errors import UserError
from lightning_embed.sources.files import FilesCorpus
from lightning_embed.sources.source import Source
from lightning_embed.tokens.encoding import KEEP_TEXT_UP_TO
from lightning_embed.tokens.preparing_time import SMALL, preparation_seconds
from lightning_embed.tokens.trained import TokenizerChoice, size_of

USUAL, MOST = 4, 12  # bytes of text a token stands for; of two bytes on the disk


def foresee(
    source: Source,
    cache_dir: Path,
    tokenizer: TokenizerChoice,
    vocab_size: int | None,
    written: int = 0,
) -> None:
    """One line about a text that takes more than a moment, before it is tokenised.

    Args:
        source: the text.
        cache_dir: where its tokens are going to be; it exists.
        tokenizer: they are made with.
        vocab_size: that was asked for.
        written: bytes of text that an ended run has tokenised, which are gone on with.

    Raises:
        UserError: the disk is surely too small.
    """
    text = size_of(source)()
    left, free = max(0, text - written), shutil.disk_usage(cache_dir).free
    needed = needed_for(source, tokenizer) * left // max(text, 1)
    # Of records a file holds more than the text, and packed files hold more text than bytes.
    if isinstance(source, FilesCorpus) and source.is_text:
        least = tokens_of(left, 2 if tokenizer == "characters" else MOST)
        if least > free:
            raise UserError(
                f"the tokens of {short(left)}B of text take about {short(needed)}B, and"
                f" {short(free)}B are free in {cache_dir}: give a larger disk with"
                " --data.cache_dir, or remove tokens with `data clean`"
            )
    if left <= SMALL:
        return
    seconds = preparation_seconds(source, tokenizer, vocab_size, written)
    takes = f" and {duration(seconds)}, once" if seconds else ""
    say(
        "tokens",
        f"{short(left)}B of text{' that are left' if written else ''} will take about"
        f" {short(needed)}B of disk ({short(free)}B are free)" + takes,
    )


def room(source: Source, cache_dir: Path, tokenizer: TokenizerChoice) -> str:
    """How much room the tokens need and there is, for who is told that the disk is full."""
    needed = needed_for(source, tokenizer)
    free = shutil.disk_usage(cache_dir).free
    return f", about {short(needed)}B are needed and {short(free)}B are free" if needed else ""


def needed_for(source: Source, tokenizer: TokenizerChoice) -> int:
    """Bytes that the prepared folder of a text usually takes."""
    text = size_of(source)()
    kept = text if text <= KEEP_TEXT_UP_TO else 0
    return tokens_of(text, 1 if tokenizer == "characters" else USUAL) + kept


def tokens_of(text: int, each: int) -> int:
    """Bytes of the tokens of so many bytes of text."""
    return 2 * text // each
