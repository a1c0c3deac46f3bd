"""Networks of every shape that is exported, with every matrix random, and their tokenizers."""

from collections.abc import Callable
from functools import cache
from typing import Any

from lightning_embed.model.decoder import DecoderLM
from lightning_embed.pretrained.llama_cpp_tokens import AWKWARD
from lightning_embed.pretrained.weights import Pretrained
from lightning_embed.tokens.tokenizer import TextTokenizer

SIZES: dict[str, Any] = {"d_model": 32, "n_layers": 2, "n_heads": 4, "d_ff": 48}
SHAPES: dict[str, dict[str, Any]] = {
    "tied": {},
    "scaled": {"scale_embedding": True},
    "untied": {"tied": False},
    "grouped": {"n_kv_heads": 2},
    "llama": {"qk_norm": False},
    "scaled_untied": {"scale_embedding": True, "tied": False},
    "theta": {"rope_theta": 500_000.0},
    "wide_heads": {"head_dim": 16, "n_kv_heads": 1, "qk_norm": False, "norm_eps": 1e-5},
    "all_at_once": {
        **{"scale_embedding": True, "tied": False, "n_kv_heads": 2, "rope_theta": 1e6},
        **{"head_dim": 4, "norm_eps": 1e-5, "d_ff": None},
    },
}


@cache
def bpe(portable: bool = False) -> TextTokenizer:
    texts = [*AWKWARD, "def read(path):\n    return path.read_text()\n" * 20]
    return TextTokenizer.train(texts, 330, portable=portable)


@cache
def characters() -> TextTokenizer:
    return TextTokenizer.characters([*AWKWARD, "def read(path):\n    return path"])


def pretrained(
    tiny_lm: Callable[..., DecoderLM], shape: str = "tied", tokenizer: TextTokenizer | None = None
) -> Pretrained:
    """A network of this shape; `tiny_lm` is the fixture."""
    import torch

    tokenizer = tokenizer or bpe()
    settings = DecoderLM.settings(**SIZES | SHAPES[shape])
    network = tiny_lm(torch.float32, vocab_size=tokenizer.vocab_size, **settings)
    return Pretrained(network, settings, tokenizer, 256)
