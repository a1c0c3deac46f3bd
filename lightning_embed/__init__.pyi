# What type checkers and editors see of `__init__.py`, whose names are loaded when first used.
from lightning_embed.data.datamodule import TextDataModule as TextDataModule
from lightning_embed.inference.text_model import load as load
from lightning_embed.model.decoder import DecoderLM as DecoderLM
from lightning_embed.padding.embedding import TokenEmbedding as TokenEmbedding
from lightning_embed.padding.guard import PaddingGuard as PaddingGuard
from lightning_embed.padding.guard import PaddingVectorChanged as PaddingVectorChanged
from lightning_embed.tokens.tokenizer import TextTokenizer as TextTokenizer
from lightning_embed.training.lightning_module import LanguageModel as LanguageModel

__version__: str
__all__ = [
    "DecoderLM",
    "LanguageModel",
    "PaddingGuard",
    "PaddingVectorChanged",
    "TextDataModule",
    "TextTokenizer",
    "TokenEmbedding",
    "load",
]
