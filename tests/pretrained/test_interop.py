"""Exported folders in transformers itself.

Where another Python has it, name that: `TRANSFORMERS_PYTHON=/path/to/python`, or several with `:`
between, for several versions.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from exported_shapes import SHAPES, characters, pretrained

from lightning_embed.model.decoder import DecoderLM
from lightning_embed.pretrained.export import export
from lightning_embed.pretrained.llama_cpp_tokens import AWKWARD
from lightning_embed.pretrained.weights import Pretrained

PYTHONS = os.environ.get("TRANSFORMERS_PYTHON", sys.executable).split(":")
PROMPTS = ["def read", "a", "plain words and a longer prompt of more tokens than the others have"]


@torch.no_grad()
def greedy(network: DecoderLM, ids: list[int], count: int) -> list[int]:
    """The most likely ids, by whole passes over the text."""
    for _ in range(count):
        ids = [*ids, int(network(torch.tensor([ids]))[0, -1].argmax())]
    return ids[-count:]


def expect(given: Pretrained, folder: Path) -> None:
    """Export, and write beside it what this project computes."""
    export(given, folder / "model")
    network, tokenizer = given.network, given.tokenizer
    texts = [(text, [tokenizer.bos_id, *tokenizer.encode(text)]) for text in AWKWARD]
    prompts = [[tokenizer.bos_id, *tokenizer.encode(prompt)] for prompt in PROMPTS]
    ids = torch.randint(2, tokenizer.vocab_size, (3, 200), generator=torch.manual_seed(1))
    with torch.no_grad():
        logits = network(ids)
    expected = {
        "texts": texts,
        "decoded": {text: tokenizer.decode(ids) for text, ids in texts},
        "ids": ids,
        "logits": logits,
        "prompts": PROMPTS,
        "new": torch.tensor([greedy(network, prompt, 200) for prompt in prompts]),
    }
    assert expected["decoded"] == {text: text for text in AWKWARD}
    torch.save(expected, folder / "expected.pt")


@pytest.mark.slow
@pytest.mark.parametrize("python", PYTHONS)
def test_transformers_computes_the_same(
    tiny_lm: Callable[..., DecoderLM], tmp_path: Path, python: str
) -> None:
    """Logits, greedy ids alone and in a batch padded on the left, ids of awkward texts; padding is
    never drawn. No tensor is missing, left over or of another shape."""
    found = subprocess.run([python, "-c", "import transformers"], capture_output=True)
    if found.returncode:
        pytest.skip(f"{python} has no transformers")
    for shape in SHAPES:
        expect(pretrained(tiny_lm, shape), tmp_path / shape)
    expect(pretrained(tiny_lm, tokenizer=characters()), tmp_path / "characters")
    script = Path(__file__).parent.parent / "in_transformers.py"
    ran = subprocess.run(
        [python, script, *(tmp_path / name for name in (*SHAPES, "characters"))],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr[-3000:]
    assert len(ran.stdout.splitlines()) == len(SHAPES) + 2
