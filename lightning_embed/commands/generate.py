"""The `generate` command: a prompt's continuation on the terminal."""

import sys

import torch

from lightning_embed.checkpointing.compatibility import Candidate, check
from lightning_embed.checkpointing.run_folders import find_checkpoint
from lightning_embed.data.tokenizer import TextTokenizer
from lightning_embed.errors import require_range
from lightning_embed.training.generate import generate_texts
from lightning_embed.training.lightning_module import LanguageModel


def generate(
    checkpoint: str,
    prompt: str = "",
    max_new_tokens: int = 200,
    temperature: float = 0.8,
    top_k: int = 50,
    top_p: float = 1.0,
    samples: int = 1,
    seed: int = 0,
) -> None:
    """Continue a prompt with a trained checkpoint.

    Args:
        checkpoint: a run's folder, whose best is taken; a .ckpt; or best or last of the latest run.
        prompt: text to continue; empty begins a document.
        max_new_tokens: tokens at most.
        temperature: 0 takes the most likely token, higher is more varied.
        top_k: draw only from the k most likely tokens; 0 for all.
        top_p: draw only from the most likely tokens that together reach this probability.
        samples: how many continuations.
        seed: of the draws.
    """
    for name, value, least in (
        ("max_new_tokens", max_new_tokens, 1),
        ("samples", samples, 1),
        ("temperature", temperature, 0),
        ("top_k", top_k, 0),
    ):
        require_range(f"--{name}", value, at_least=least)
    require_range("--top_p", top_p, above=0, at_most=1)
    path = find_checkpoint(checkpoint, "generate")
    check(Candidate(path, "generate"), "file", "content")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    module = LanguageModel.load_from_checkpoint(path, map_location=device)
    _note_unread(module, prompt)
    texts = generate_texts(
        module,
        [prompt] * samples,
        max_new_tokens=max_new_tokens,
        max_length=module.hparams["max_length"],
        temperature=temperature,
        top_k=top_k or None,
        top_p=top_p,
        seed=seed,
    )
    for number, text in enumerate(texts):
        if samples > 1:
            print(f"--- {number + 1} of {samples}")
        print(prompt + text)


def _note_unread(module: LanguageModel, prompt: str) -> None:
    """Tell, beside the text on standard output, which part of a prompt the model does not see."""
    if module.tokenizer_json is None:
        return
    tokenizer, seen = TextTokenizer.from_json(module.tokenizer_json), module.hparams["max_length"]
    ids = [tokenizer.bos_id, *tokenizer.encode(prompt)]
    unknown = ids.count(tokenizer.unk_id) if tokenizer.unk_id is not None else 0
    notes = []
    if unknown:
        notes.append(f"{unknown:,} of the prompt's tokens are unknown to the model's tokenizer")
    if len(ids) > seen:
        notes.append(f"of the prompt's {len(ids):,} tokens the model sees the last {seen:,}")
    for note in notes:
        print(f"{'note':<9}{note}", file=sys.stderr)
