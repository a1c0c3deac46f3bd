"""Continues texts: prompts to ids, new ids to text as it comes, a few rows at a time."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from lightning_embed.inference.continuation import Continuation
from lightning_embed.inference.generate import new_ids
from lightning_embed.inference.sampling import Sampling
from lightning_embed.model.decoder import DecoderLM
from lightning_embed.tokens.tokenizer import TextTokenizer

ROWS_AT_ONCE = 16

Reason = Literal["end", "stop", "length"]


class Piece(NamedTuple):
    """More text of a prompt's continuation; the last one says what ended it and how many tokens
    were drawn: an end token, a stop string, or the number of tokens asked for."""

    row: int
    text: str
    ended: Reason | None = None
    tokens: int = 0


def stream_texts(
    network: DecoderLM,
    tokenizer: TextTokenizer,
    prompts: Sequence[str],
    sampling: Sampling,
    *,
    max_new_tokens: int,
    max_length: int,
    stop: Sequence[str] = (),
    samples: int = 1,
) -> Iterator[Piece]:
    """Continuations of all prompts, in pieces as they come. A prompt's text does not depend on the
    others, but for its repetitions, each of which is drawn anew; see `new_ids`. With `samples` of
    each, row `samples * i + j` is the sample j of prompt i."""
    before = Counter[str]()
    for begin in range(0, len(prompts) * samples, ROWS_AT_ONCE):
        end = min(begin + ROWS_AT_ONCE, len(prompts) * samples)
        some = [prompts[row // samples] for row in range(begin, end)]
        numbers = []
        for prompt in some:
            numbers.append(before[prompt])
            before[prompt] += 1
        rows = [[tokenizer.bos_id, *tokenizer.encode(prompt)] for prompt in some]
        texts = [Continuation(tokenizer, row, stop) for row in rows]
        counts, ended = [0] * len(rows), set[int]()
        for row, new in new_ids(
            network,
            rows,
            sampling,
            max_new_tokens=max_new_tokens,
            max_length=max_length,
            eos_id=tokenizer.eos_id,
            ended=ended,
            numbers=numbers,
        ):
            counts[row] += 1
            text = texts[row]
            reason: Reason | None = "end" if row in ended else None
            piece = "" if reason else text.add(new)
            if not reason and counts[row] == max_new_tokens:
                reason = "length"
            if reason:
                piece += text.rest()
            if text.stopped:
                reason = "stop"
                ended.add(row)
            if piece or reason:
                yield Piece(begin + row, piece, reason, counts[row])


def joined(pieces: Iterable[Piece], count: int) -> list[str]:
    """The text of each of `count` prompts, once all pieces have come."""
    texts = [""] * count
    for piece in pieces:
        texts[piece.row] += piece.text
    return texts
