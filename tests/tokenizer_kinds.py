"""Tokenizers of every kind that people bring, trained by the `tokenizers` library on a little text,
as their makers' files have them: with ids, special tokens and prefixes of their own.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from lightning_embed.tokens.tokenizer import TextTokenizer

TEXTS = [
    "Pears and apples, 1234567890 of them; it's a café in the üben.\n\n  Two lines\tand tabs. " * 5,
    "def read(self):\r\n\treturn self.names[name]\n" * 5,
    "<s> <pad> </s> <unk> [CLS] [PAD] [SEP] [UNK] ABCDEFGHIJKLMNOPQRSTUVWXYZ jkqvxz " * 5,
]
BYTE_TOKENS = [f"<0x{number:02X}>" for number in range(256)]
STRIPPED = {  # as in Llama's file
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ],
}


def _changed(tokenizer: Tokenizer, change: Callable[[dict[str, Any]], None]) -> Tokenizer:
    data = json.loads(tokenizer.to_str())
    change(data)
    return Tokenizer.from_str(json.dumps(data))


def gpt2() -> Tokenizer:
    """Byte-level BPE."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=350,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def bert(lowercase: bool = True) -> Tokenizer:
    """WordPiece."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=200, special_tokens=specials, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def t5() -> Tokenizer:
    """Unigram with Metaspace, as SentencePiece makes them; no bytes."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def unigram_with_bytes() -> Tokenizer:
    def change(data: dict[str, Any]) -> None:
        data["model"]["vocab"] += [[token, -20.0] for token in BYTE_TOKENS]
        data["model"]["byte_fallback"] = True
        data["decoder"] = STRIPPED

    return _changed(t5(), change)


def llama2() -> Tokenizer:
    """BPE over characters, bytes for those it lacks; its normalizer writes the spaces."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence(steps)
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<unk>", "<s>", "</s>", *BYTE_TOKENS],
        max_token_length=6,
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)

    def change(data: dict[str, Any]) -> None:
        data["added_tokens"], data["decoder"] = data["added_tokens"][:3], STRIPPED

    return _changed(tokenizer, change)


def words() -> Tokenizer:
    """WordLevel."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordLevelTrainer(
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def clip() -> Tokenizer:
    """BPE over lower-cased words whose ends are marked, without an unknown token."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    trainer = trainers.BpeTrainer(
        vocab_size=200,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


FOREIGN = {
    make.__name__: make for make in (gpt2, bert, t5, unigram_with_bytes, llama2, words, clip)
}


@cache
def kinds(folder: Path) -> dict[str, TextTokenizer]:
    """One of each kind, foreign ones adopted, and those that are trained here; the files of the
    foreign ones are in the folder."""
    made = {
        "bpe": TextTokenizer.train(TEXTS, 300),
        "portable": TextTokenizer.train(TEXTS, 300, portable=True),
        "characters": TextTokenizer.characters(TEXTS),
    }
    for name, make in FOREIGN.items():
        make().save(str(folder / f"{name}.json"))
        made[name] = TextTokenizer.adopt(str(folder / f"{name}.json"))
    return made
