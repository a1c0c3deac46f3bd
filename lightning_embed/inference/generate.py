"""Continues rows of ids with a trained network, several at once, each as it would be alone.

The network reads a prompt once and then one position a token (`model/cache.py`). It has never seen
a position beyond its training window: when a row is as long as the window, the last half of it is
read anew, as the beginning of another window, which is how `--data.eval_overlap` has evaluation
read long documents. So from there on the network sees between half a window and a whole one.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lightning_embed.inference.sampling import Sampling, penalise, pick
from lightning_embed.model.cache import KeyValueCache
from lightning_embed.model.decoder import DecoderLM
from lightning_embed.special_tokens import PAD_ID


@torch.inference_mode()
def new_ids(
    model: DecoderLM,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    max_new_tokens: int,
    max_length: int,
    eos_id: int,
    ended: set[int],
    numbers: Sequence[int] | None = None,
) -> Iterator[tuple[int, int]]:
    """Each new id with its row's number, as soon as it is known; the end token too.

    Args:
        model: one in training mode is in evaluation mode until the end, of which others that use
            it meanwhile would know nothing; one in evaluation mode is only read.
        prompts: ids, at least one a row; of one longer than `max_length` the last are read.
        sampling: how ids are drawn.
        max_new_tokens: of a row; it ends earlier at `eos_id`.
        max_length: positions of a training window.
        eos_id: the end token.
        ended: rows that are done; the caller may add rows, which are then not gone on with.
        numbers: of the rows' draws; two rows of one number and one prompt get the same ids.
    """
    rows = [list(prompt) for prompt in prompts]
    draws = [sampling.draws(number) for number in numbers or range(len(rows))]
    alive = [row for row in range(len(rows)) if row not in ended]
    was_training = model.training
    if was_training:
        model.eval()
    try:
        shown = [rows[row][-max_length:] for row in alive]
        cache, hidden = read(model, shown)
        present = _present(model, shown) if sampling.repetition_penalty != 1 else None
        for number in range(max_new_tokens):
            if number:
                last = [rows[row] for row in alive]
                _make_room(model, cache, last, max_length)
                ids = torch.tensor([[row[-1]] for row in last], device=hidden.device)
                hidden = model.step(ids, cache)
            logits = model.logits(hidden).float()
            if present is not None:
                logits = penalise(logits, present, sampling.repetition_penalty)
            picks = pick(logits, sampling, [draws[row] for row in alive])
            if present is not None:
                present.scatter_(1, picks[:, None], True)
            for row, new in zip(alive, picks.tolist(), strict=True):
                rows[row].append(new)
                if new == eos_id:
                    ended.add(row)
                yield row, new
            going = [place for place, row in enumerate(alive) if row not in ended]
            if not going:
                return
            if len(going) < len(alive):
                alive = [alive[place] for place in going]
                cache.keep_rows(going)
                present = None if present is None else present[going]
    finally:
        if was_training:
            model.train()


def read(model: DecoderLM, rows: Sequence[Sequence[int]]) -> tuple[KeyValueCache, Tensor]:
    """A cache that holds these ids, and the stream at each row's last one, `(B, D)`."""
    cache = KeyValueCache(len(model.blocks), [len(row) for row in rows])
    width = max(map(len, rows))
    padded = [[PAD_ID] * (width - len(row)) + list(row) for row in rows]
    ids = torch.tensor(padded, device=model.embedding.weight.device)
    return cache, model.fill(ids, cache)[:, -1]


def _make_room(
    model: DecoderLM, cache: KeyValueCache, rows: list[list[int]], max_length: int
) -> None:
    """Before the last id of each row is read: rows as long as a window begin another one."""
    full = [place for place, length in enumerate(cache.lengths) if length == max_length]
    if full:
        half = max(1, max_length // 2)
        cache.replace(full, read(model, [rows[place][-half - 1 : -1] for place in full])[0])


def _present(model: DecoderLM, rows: Sequence[Sequence[int]]) -> Tensor:
    """Which ids stand in each row, `(B, V)`."""
    weight = model.head_weight
    present = torch.zeros(len(rows), len(weight), dtype=torch.bool, device=weight.device)
    for number, row in enumerate(rows):
        present[number, torch.tensor(row, device=weight.device)] = True
    return present
