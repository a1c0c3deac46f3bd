"""Which of the ways that llama.cpp cuts text into pieces gives the ids of a tokenizer.

A GGUF file has a tokenizer's tokens and merges, but of its pre-tokenizer only a name, which must be
one that llama.cpp has written in its code. Each is built here of the same merges and encodes texts
beside the tokenizer itself; one with other ids would be fed what it never saw in training.
"""

import json
from collections.abc import Iterable
from itertools import islice
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers

from lightning_embed.errors import UserError
from lightning_embed.pretrained.held_out import find_held_out
from lightning_embed.pretrained.weights import Pretrained
from lightning_embed.sources.source import About
from lightning_embed.sources.stdlib import StdlibCorpus
from lightning_embed.tokens.held_out_again import HeldOutAgain
from lightning_embed.tokens.tokenizer import PORTABLE, cut_by

TEXTS = 500  # documents that are compared, beside AWKWARD

LETTERS = (  # of Llama 3 and Qwen2, which differ in how many digits make a piece
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
KNOWN = {  # names in llama.cpp and the patterns of their pieces
    "superbpe": PORTABLE,
    "gpt-2": (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",),
    "llama-bpe": (LETTERS % "{1,3}",),
    "qwen2": (LETTERS % "",),
}
IGNORE_MERGES = ("llama-bpe",)  # where a piece that is a token is never put together

AWKWARD = (
    *("", " ", "plain words", "  two spaces before", "a space after ", "\n\n\tlines\r\nand tabs\n"),
    *("<pad>", "<s>text</s>", "a <pad> in the middle <unk>", "1234567 and 3.14159", "x" * 300),
    *(
        "١٢٣٤٥ and \uff11\uff12\uff13\uff14\uff15 and x²³",
        "emoji 🙂👩‍👩‍👧",
        "中文字",
        "cafe\u0301 in NFD",
        "café in NFC",
    ),
    *(
        "a\x00b NUL",
        "don't 'quote' .  , !",
        "def f(x):\n        return x  \n\n\n    y",
        "ÀÉ ΑΒΓ привет",
    ),
)


def llama_cpp_name(pretrained: Pretrained) -> str:
    """The name in llama.cpp of a way to cut text that gives this tokenizer's ids on the held-out
    text of its run, or where that is not at hand on code, and on awkward texts.

    Raises:
        UserError: there is none.
    """
    tokenizer = pretrained.tokenizer
    data = json.loads(tokenizer.to_json())
    way_out = (
        "a new model can be trained with --data.tokenizer bpe-portable; --format huggingface"
        " takes any"
    )
    if not _is_byte_level_bpe(data):
        kind = data["model"].get("type", "unnamed")
        raise UserError(
            f"llama.cpp has no tokenizer like this one ({kind}, not of bytes): {way_out}"
        )
    texts = [*AWKWARD, *islice(_texts(pretrained), TEXTS)]
    own = [tokenizer.encode(text) for text in texts]
    differing = {name: _count(_as_in_llama_cpp(data, name), texts, own) for name in KNOWN}
    best = min(differing, key=lambda name: differing[name])
    if differing[best]:
        raise UserError(
            f"llama.cpp would give {differing[best]:,} of {len(texts):,} texts other ids than the"
            f" network was trained with, and that with the nearest of its tokenizers, {best}:"
            f" {way_out}"
        )
    return best


def _is_byte_level_bpe(data: dict[str, Any]) -> bool:
    model = data["model"]
    alphabet = set(pre_tokenizers.ByteLevel.alphabet())
    return model.get("type") == "BPE" and alphabet <= set(model["vocab"])


def _texts(pretrained: Pretrained) -> Iterable[str]:
    """Held-out documents of the network's run, else the standard library's."""
    if found := find_held_out(pretrained.about):
        return HeldOutAgain(found[0]).texts()
    return (document.text for document in StdlibCorpus().documents(About()))


def _as_in_llama_cpp(data: dict[str, Any], name: str) -> Tokenizer:
    """The merges of a tokenizer (its parsed tokenizer.json) in pieces of one of `KNOWN`."""
    model = data["model"] | {"ignore_merges": name in IGNORE_MERGES, "dropout": None}
    tokenizer = Tokenizer.from_str(json.dumps(data | {"model": model, "normalizer": None}))
    tokenizer.pre_tokenizer = cut_by(*KNOWN[name])
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _count(tokenizer: Tokenizer, texts: list[str], own: list[list[int]]) -> int:
    """How many texts have other ids."""
    theirs = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return sum(a.ids != b for a, b in zip(theirs, own, strict=True))
