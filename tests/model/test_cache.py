"""A network that reads on from its cache gives what it gives for the whole text."""

import pytest
import torch

from lightning_embed import DecoderLM
from lightning_embed.inference.generate import read
from lightning_embed.model.cache import KeyValueCache

SHAPES = {
    "tied": {},
    "scaled": {"scale_embedding": True},
    "untied": {"tied": False},
    "scaled and untied": {"scale_embedding": True, "tied": False},
    "grouped": {"n_heads": 4, "n_kv_heads": 2},
    "without query-key norms": {"qk_norm": False},
    "another theta": {"rope_theta": 500.0},
}
ROWS = [[0, 5], [0, 9, 3, 17, 4, 8], [0], [0, 22, 22, 7]]


def whole(model: DecoderLM, row: list[int]) -> torch.Tensor:
    return model(torch.tensor([row]))[0, -1]


def append(
    model: DecoderLM, cache: KeyValueCache, rows: list[list[int]], seed: int
) -> torch.Tensor:
    """A random id at the end of each row, and the logits after it."""
    draw = torch.Generator().manual_seed(seed)
    new = torch.randint(3, 23, (len(rows), 1), generator=draw)
    for row, more in zip(rows, new.tolist(), strict=True):
        row += more
    return model.logits(model.step(new, cache))


@torch.no_grad()
@pytest.mark.parametrize("settings", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_logits_of_mixed_lengths_are_those_of_whole_texts(tiny_lm, settings, dtype) -> None:
    model = tiny_lm(dtype=dtype, **settings)
    rows = [list(row) for row in ROWS]
    cache, hidden = read(model, rows)
    logits = model.logits(hidden)
    for step in range(20):  # the store has grown several times by then
        for found, row in zip(logits, rows, strict=True):
            torch.testing.assert_close(found, whole(model, row), atol=2e-5, rtol=0)
        logits = append(model, cache, rows, step)
    assert cache.lengths == [len(row) for row in rows]


@torch.no_grad()
def test_rows_can_be_left_out_and_others_put_in_their_place(tiny_lm) -> None:
    model = tiny_lm()
    rows = [list(row) for row in ROWS]
    cache, _ = read(model, rows)
    append(model, cache, rows, 0)
    cache.keep_rows([1, 3])
    rows = [rows[1], rows[3]]
    append(model, cache, rows, 1)
    for step in range(2, 40, 3):  # again and again, so that old slots are given up
        rows[0] = rows[0][-3:]
        cache.replace([0], read(model, [rows[0]])[0])
        for more in range(3):
            logits = append(model, cache, rows, step + more)
        rows[1] = rows[1][-4:]
        cache.replace([1], read(model, [rows[1]])[0])
        assert cache.lengths == [6, 4]
        torch.testing.assert_close(logits[0], whole(model, rows[0]))
    assert cache.end < 20
    torch.testing.assert_close(append(model, cache, rows, 99)[1], whole(model, rows[1]))
