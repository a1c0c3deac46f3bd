"""Generates ids with the default run's network: ours, or the same network of transformers.

Started by `generation.py`. The weights are random, as speed does not depend on them. A step is one
call: `rows` prompts of `prompt` ids, `new` ids after each, drawn at temperature 0.8 from the 50
most likely.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from turns import Turns, parameter_count, settings

SAMPLING = {"temperature": 0.8, "top_k": 50}
PAD = 1


def ours(asked: dict[str, Any]) -> tuple[torch.nn.Module, Callable[[torch.Tensor], int]]:
    from lightning_embed import DecoderLM
    from lightning_embed.inference.generate import new_ids
    from lightning_embed.inference.sampling import Sampling

    model = DecoderLM(asked["vocab_size"], **asked["model"]).eval()
    settings = {"max_new_tokens": asked["new"], "max_length": asked["window"], "eos_id": -1}

    def generate(ids: torch.Tensor) -> int:
        found = new_ids(model, ids.tolist(), Sampling(**SAMPLING), ended=set(), **settings)
        return sum(1 for _ in found)

    return model, generate


def transformers(asked: dict[str, Any]) -> tuple[torch.nn.Module, Callable[[torch.Tensor], int]]:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    width, heads = asked["model"]["d_model"], asked["model"]["n_heads"]
    config = Qwen3Config(
        vocab_size=asked["vocab_size"],
        hidden_size=width,
        intermediate_size=asked["d_ff"],
        num_hidden_layers=asked["model"]["n_layers"],
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=width // heads,
        max_position_embeddings=asked["window"],
        tie_word_embeddings=True,
        eos_token_id=None,
        pad_token_id=PAD,
    )
    model = Qwen3ForCausalLM(config).eval()
    options = {"max_new_tokens": asked["new"], "do_sample": True, "suppress_tokens": [PAD]}

    def generate(ids: torch.Tensor) -> int:
        found = model.generate(
            ids, attention_mask=torch.ones_like(ids), use_cache=True, **options, **SAMPLING
        )
        return int(found[:, ids.shape[1] :].numel())

    return model, generate


def main() -> None:
    asked = settings()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    model, generate = {"ours": ours, "transformers": transformers}[asked["side"]](asked)
    ids = torch.randint(4, asked["vocab_size"], (asked["rows"], asked["prompt"]))
    turns = Turns(asked["warm"], asked["steps"], {"parameters": parameter_count(model)})
    while True:
        turns(generate(ids))


if __name__ == "__main__":
    main()
