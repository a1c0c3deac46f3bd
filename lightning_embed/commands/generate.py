"""The `generate` command: continuations of prompts on the terminal, as they come."""

import json as jsonlib
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

from lightning_embed.console import say
from lightning_embed.errors import UserError
from lightning_embed.inference.arguments import require_text, require_whole
from lightning_embed.inference.sampling import Sampling
from lightning_embed.inference.text_model import load
from lightning_embed.inference.texts import Piece


def generate(
    checkpoint: str,
    prompt: str | list[str] = "",
    prompts: str | None = None,
    max_new_tokens: int = 200,
    temperature: float = 0.8,
    top_k: int = 50,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    stop: str | list[str] | None = None,
    samples: int = 1,
    seed: int = 0,
    device: str | None = None,
    json: bool = False,
) -> None:
    """Continue a prompt with a trained checkpoint.

    Args:
        checkpoint: a run's folder, whose best is taken; a .ckpt or a folder of shards; best or last
            of the latest run; or a Hugging Face folder.
        prompt: text to continue; empty begins a document; several may be given.
        prompts: a file in UTF-8 with a prompt on each line, in place of --prompt; - for standard
            input.
        max_new_tokens: tokens at most.
        temperature: 0 takes the most likely token, higher is more varied.
        top_k: draw only from the k most likely tokens; 0 for all.
        top_p: draw only from the most likely tokens that together reach this probability.
        repetition_penalty: above 1 makes tokens that stand in the text already less likely.
        stop: end the text before this string, which is taken as it is; several may be given.
        samples: how many continuations of each prompt.
        seed: of the draws.
        device: cpu or cuda; unset, cuda where there is one.
        json: write a line of JSON for each continuation, once it has ended.
    """
    require_whole("--max_new_tokens", max_new_tokens, at_least=1)
    require_whole("--samples", samples, at_least=1)
    given = [prompt] if isinstance(prompt, str) else prompt
    for text in given:
        require_text("--prompt", text)
    sampling = Sampling(temperature, top_k, top_p, repetition_penalty, seed)
    if prompts is not None and any(given):
        raise UserError("--prompt and --prompts are both given: leave one out")
    each = given if prompts is None else _lines(prompts)
    with redirect_stdout(sys.stderr):  # where notes belong, beside the text
        model = load(checkpoint, device=device)
        for text in each:
            for note in model.unread(text):
                say("note", note)
    pieces = model.stream(each, sampling, max_new_tokens=max_new_tokens, stop=stop, samples=samples)
    if json:
        _write_json(each, samples, pieces)
    else:
        _write_texts(each, samples, pieces)


def _lines(place: str) -> list[str]:
    """The prompts in a file or standard input."""
    try:
        if place != "-":
            found = Path(place).read_bytes()
        elif sys.stdin is None:
            raise UserError("--prompts - cannot be read: standard input is closed")
        else:
            found = sys.stdin.buffer.read()
        text = found.decode("utf-8-sig")  # a byte order mark is no part of the first prompt
    except OSError as error:
        raise UserError(f"--prompts {place} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"--prompts {place} is not UTF-8 (byte {error.start})") from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = text.removesuffix("\n").split("\n") if text else []
    if not lines:
        raise UserError(f"--prompts {place} is empty: write a prompt on each line")
    return lines


def _write_texts(prompts: list[str], samples: int, pieces: Iterator[Piece]) -> None:
    """Prompt and text of one row after the other. Several are computed at once, so what comes of a
    later one waits until the one before has ended."""
    count = len(prompts) * samples
    for number, row in enumerate(_in_order(count, pieces)):
        if count > 1:
            print(f"--- {number + 1} of {count}")
        print(prompts[number // samples], end="", flush=True)
        for piece in row:
            print(piece.text, end="", flush=True)
        print(flush=True)


def _write_json(prompts: list[str], samples: int, pieces: Iterator[Piece]) -> None:
    for number, row in enumerate(_in_order(len(prompts) * samples, pieces)):
        found = list(row)
        line = {
            "prompt": prompts[number // samples],
            "sample": number % samples,
            "text": "".join(piece.text for piece in found),
            "tokens": found[-1].tokens,
            "ended": found[-1].ended,
        }
        print(jsonlib.dumps(line, ensure_ascii=False), flush=True)


def _in_order(count: int, pieces: Iterator[Piece]) -> Iterator[Iterator[Piece]]:
    """The pieces of row 0 as they come, then those of row 1, ...; each must be used up before the
    next is asked for."""
    waiting = defaultdict[int, list[Piece]](list)

    def of(number: int) -> Iterator[Piece]:
        while True:
            while not waiting[number]:
                piece = next(pieces)
                waiting[piece.row].append(piece)
            yield (piece := waiting[number].pop(0))
            if piece.ended:
                del waiting[number]
                return

    return (of(number) for number in range(count))
