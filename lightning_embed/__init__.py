"""Train a small language model from scratch, with a padding vector that is zero and stays zero.

The names below are loaded when first used, so that `from lightning_embed import TokenEmbedding`
needs torch alone.
"""

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

_HOMES = {
    "load": "inference.text_model",
    "TokenEmbedding": "padding.embedding",
    "DecoderLM": "model.decoder",
    "LanguageModel": "training.lightning_module",
    "TextDataModule": "data.datamodule",
    "TextTokenizer": "tokens.tokenizer",
    "PaddingGuard": "padding.guard",
    "PaddingVectorChanged": "padding.guard",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
