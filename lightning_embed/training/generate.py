"""Continues texts with a trained model: sampling, for prompts of different lengths in one batch.

Rows are right-padded as in training. A row's next token replaces its first padding token, and
causal attention never sees the padding behind it.
"""

import torch
from torch import Tensor

from lightning_embed.data.tokenizer import TextTokenizer
from lightning_embed.model.decoder import DecoderLM
from lightning_embed.special_tokens import PAD_ID
from lightning_embed.training.lightning_module import LanguageModel


@torch.no_grad()
def generate_ids(
    model: DecoderLM,
    prompts: list[list[int]],
    *,
    max_new_tokens: int,
    max_length: int,
    eos_id: int,
    temperature: float = 0.8,
    top_k: int | None = 50,
    top_p: float = 1.0,
    seed: int = 0,
) -> list[list[int]]:
    """New ids for each prompt, without the prompt and without the end token.

    Args:
        model: left in the mode (training, evaluation) it was in.
        prompts: ids, each beginning with <s>.
        max_new_tokens: ids at most; a row ends earlier at `eos_id`.
        max_length: positions the model was trained with; of a longer text it sees the last ones.
        temperature: 0 takes the most likely id.
        top_k: only the k most likely ids; None for all.
        top_p: only the most likely ids that together reach this probability.
        seed: of the draws.
    """
    device = model.embedding.weight.device
    was_training = model.training
    model.eval()
    generator = torch.Generator(device=device).manual_seed(seed)
    rows = [list(prompt) for prompt in prompts]
    new: list[list[int]] = [[] for _ in prompts]
    alive = list(range(len(prompts)))
    try:
        for _ in range(max_new_tokens):
            shown = [rows[i][-max_length:] for i in alive]
            ids = torch.full((len(alive), max(map(len, shown))), PAD_ID, device=device)
            for number, row in enumerate(shown):
                ids[number, : len(row)] = torch.tensor(row, device=device)
            last = torch.tensor([len(row) - 1 for row in shown], device=device)
            hidden = model.hidden(ids)[torch.arange(len(alive), device=device), last]
            picks = _draw(
                model.logits(hidden).float(), temperature, top_k, top_p, generator
            ).tolist()
            for i, pick in zip(alive, picks, strict=True):
                rows[i].append(pick)
                if pick != eos_id:
                    new[i].append(pick)
            alive = [i for i, pick in zip(alive, picks, strict=True) if pick != eos_id]
            if not alive:
                break
    finally:
        model.train(was_training)
    return new


def _draw(
    logits: Tensor,
    temperature: float,
    top_k: int | None,
    top_p: float,
    generator: torch.Generator,
) -> Tensor:
    """One id for each row of `logits` `(B, V)`."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        kept = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < kept, float("-inf"))
    probabilities = logits.softmax(dim=-1)
    if top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True)
        beyond = ordered.cumsum(dim=-1) - ordered >= top_p  # the first id always stays
        dropped = torch.zeros_like(beyond).scatter(1, order, beyond)
        probabilities = probabilities.masked_fill(dropped, 0.0)
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(1)


def generate_texts(
    module: LanguageModel,
    prompts: list[str],
    *,
    max_new_tokens: int = 200,
    max_length: int = 256,
    temperature: float = 0.8,
    top_k: int | None = 50,
    top_p: float = 1.0,
    seed: int = 0,
) -> list[str]:
    """Each prompt's continuation, as text; see `generate_ids`."""
    assert module.tokenizer_json is not None, "a model that was not trained on text"
    tokenizer = TextTokenizer.from_json(module.tokenizer_json)
    new = generate_ids(
        module.network,
        [[tokenizer.bos_id, *tokenizer.encode(prompt)] for prompt in prompts],
        max_new_tokens=max_new_tokens,
        max_length=max_length,
        eos_id=tokenizer.eos_id,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
    )
    return [tokenizer.decode(ids) for ids in new]
