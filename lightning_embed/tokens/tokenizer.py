"""Text to ids and back: one thin class around the `tokenizers` library.

A byte-level BPE or a character vocabulary is trained with our four ids first; somebody else's
`tokenizer.json` is taken if it has the special tokens (`<pad>` is id 1) and is renumbered by
`adoption.py` if not. The names of special tokens in a user's text are text.

What a `tokenizer.json` does not keep, or keeps and should not: that literal `<pad>` in a text is
text; truncation and padding of whoever made it. `TextTokenizer.__init__` sets all three.

Many kinds put a space before every text (`▁`) and leave it out again in decoding. A part of a text
is therefore encoded with `begins=False`, and one id's text is that behind another: `text_of`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from lightning_embed.atomic import replacing
from lightning_embed.errors import UserError, one_line
from lightning_embed.processes import command
from lightning_embed.special_tokens import PAD_ID, SPECIAL_TOKENS, UNK
from lightning_embed.tokens.tokenizer_json import (
    BOS_NAMES,
    EOS_NAMES,
    PAD_NAMES,
    UNK_NAMES,
    first,
    inside_of,
    mark_specials,
    parse,
    read_tokenizer_json,
    without_prefix,
)

IdType: TypeAlias = type[np.uint8 | np.uint16 | np.uint32]
SMALLEST_VOCABULARY = len(SPECIAL_TOKENS) + 256  # our four and every byte

# What BPE may merge: a word with the space or sign before it; up to three digits; punctuation with
# the line break and indentation after it; a line break with its indentation; other white space.
# On the standard library at 4,096 ids this gives 4.15 bytes a token, GPT-2's pattern 3.80, cl100k's
# 3.83, at the same speed.
PATTERN = "|".join(
    (
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+(?:[\r\n]+[ \t]*(?=\S))?",
        r"\s*[\r\n]+[ \t]*(?=\S)",
        r"\s+(?!\S)",
        r"\s+",
    )
)

# What llama.cpp cuts text into where a file says "superbpe": numbers, in threes from their end, and
# all between them whole. Merges that were learned in pieces of PATTERN seldom cross their ends.
PORTABLE = (r"\p{N}+", r"(?=([0-9]{3})+(?![0-9]))")


def cut_by(*patterns: str) -> pre_tokenizers.PreTokenizer:
    """Cuts text by each pattern in turn; the pieces are then bytes."""
    cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*cuts, to_bytes])


class TextTokenizer:
    """A tokenizer whose padding id is 1 and which takes user text literally.

    Make one with `train`, `characters`, `load`, `adopt` or `from_json`. Raises UserError, one
    sentence, when the padding, begin or end token is missing or padding has another id than 1.
    """

    def __init__(self, tokenizer: Tokenizer, name: str = "tokenizer.json") -> None:
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        tokenizer.encode_special_tokens = True  # names of special tokens in a text are text
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.vocab_size: int = max(vocabulary.values(), default=-1) + 1
        self.bos_id, self.eos_id = _check_specials(tokenizer, vocabulary, name)
        self.pad_id: int = PAD_ID
        unknown = first(UNK_NAMES, vocabulary)
        self.unk_id: int | None = None if unknown is None else vocabulary[unknown]
        self._keep_names_as_text(vocabulary, name)

    # -- making one ------------------------------------------------------------------------

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int, *, portable: bool = False
    ) -> TextTokenizer:
        """Byte-level BPE with our four ids, the 256 bytes, and as many merges as fit.

        Text that supports fewer merges gives a smaller vocabulary: compare `vocab_size`. `portable`
        encodes as llama.cpp can: no piece but a number's digits is cut before merging.
        """
        if vocab_size < SMALLEST_VOCABULARY:
            raise UserError(
                f"--data.vocab_size {vocab_size} is too small: at least {SMALLEST_VOCABULARY} "
                f"({len(SPECIAL_TOKENS)} special tokens and 256 bytes)"
            )
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = cut_by(PATTERN)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        if portable:
            tokenizer.pre_tokenizer = cut_by(*PORTABLE)
        return cls(tokenizer)

    @classmethod
    def characters(cls, texts: Iterable[str]) -> TextTokenizer:
        """One id for each character of `texts`, by code point; any other becomes `<unk>`."""
        alphabet: set[str] = set()
        for text in texts:
            alphabet.update(text)
        vocabulary = {token: i for i, token in enumerate((*SPECIAL_TOKENS, *sorted(alphabet)))}
        # a BPE without merges is a character vocabulary, eight times faster than splitting
        model = models.BPE(vocabulary, [], unk_token=UNK, fuse_unk=False, cache_capacity=0)
        tokenizer = Tokenizer(model)
        tokenizer.decoder = decoders.Fuse()
        tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
        return cls(tokenizer)

    @classmethod
    def load(cls, name_or_file: str) -> TextTokenizer:
        """A `tokenizer.json`, a folder with one, or a name on the Hub, its ids as they are."""
        return cls.from_json(read_tokenizer_json(name_or_file), name_or_file)

    @classmethod
    def adopt(cls, name_or_file: str) -> TextTokenizer:
        """Somebody else's tokenizer, renumbered to our four ids (see `adoption.py`)."""
        from lightning_embed.tokens.adoption import adopted

        text = read_tokenizer_json(name_or_file)
        return cls.from_json(adopted(parse(text, name_or_file), name_or_file), name_or_file)

    @classmethod
    def from_json(cls, text: str, name: str = "tokenizer.json") -> TextTokenizer:
        """The tokenizer that `to_json` wrote, or any `tokenizer.json`'s text."""
        data = mark_specials(parse(text, name))
        try:
            tokenizer = Tokenizer.from_str(json.dumps(data, ensure_ascii=False))
        except Exception as error:  # the library raises bare Exceptions
            raise UserError(f"{name} is not a usable tokenizer.json: {one_line(error)}") from None
        return cls(tokenizer, name)

    # -- keeping it ------------------------------------------------------------------------

    def to_json(self) -> str:
        return self._tokenizer.to_str()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_json()` to `path`; whoever reads it sees the old file or the whole new one."""
        with replacing(Path(path)) as file:
            file.write_text(self.to_json(), encoding="utf-8", newline="")

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change when anything about the encoding changes."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    # -- using it --------------------------------------------------------------------------

    @property
    def id_type(self) -> IdType:
        """The smallest type that holds all ids."""
        if self.vocab_size <= 2**8:
            return np.uint8
        return np.uint16 if self.vocab_size <= 2**16 else np.uint32

    def encode(self, text: str, *, begins: bool = True) -> list[int]:
        """The ids of `text` alone, without `<s>` and `</s>`; `begins` as in `encode_documents`."""
        library = self._tokenizer if begins else self._inside
        (encoding,) = library.encode_batch_fast([text], add_special_tokens=False)
        ids: list[int] = encoding.ids
        return ids

    def encode_documents(
        self, texts: Sequence[str], begins: Sequence[bool] | None = None
    ) -> list[np.ndarray]:
        """`<s> text </s>` for each text, encoded in parallel; uint16 while the ids fit.

        Args:
            texts: documents, or parts of them.
            begins: whether each begins a document; what goes on with one gets no space of the
                tokenizer's own before it. Unset, all do.
        """
        whole = [begins is None or begins[n] for n in range(len(texts))]
        found = {}
        for begin in set(whole):
            library = self._tokenizer if begin else self._inside
            some = [text for text, its in zip(texts, whole, strict=True) if its == begin]
            found[begin] = iter(library.encode_batch_fast(some, add_special_tokens=False))
        documents = list[np.ndarray]()
        for encoding in (next(found[begin]) for begin in whole):
            document: Any = np.empty(len(encoding) + 2, self.id_type)
            document[0], document[1:-1], document[-1] = self.bos_id, encoding.ids, self.eos_id
            documents.append(document)
        return documents

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        text: str = self._tokenizer.decode(
            [int(i) for i in ids], skip_special_tokens=skip_special_tokens
        )
        return text

    def gives_back(self, text: str) -> bool:
        """Whether the ids of a text decode to that text."""
        return self.decode(self.encode(text)) == text

    def text_of(self, number: int) -> str:
        """The text of one id behind another, with its space; of a special token its name. Part of a
        character is U+FFFD."""
        if number in (self.bos_id, self.pad_id, self.eos_id, self.unk_id):
            return self.decode([number], skip_special_tokens=False)
        return self.decode([*self.anchor, number])[len(self.decode(self.anchor)) :]

    def piece(self, number: int) -> str:
        """How the vocabulary spells an id: a part of a character has no text of its own."""
        return self._tokenizer.id_to_token(number) or ""

    @cached_property
    def anchor(self) -> list[int]:
        """Ids of a word: what is decoded behind them does not begin a text. Empty without words."""
        for number in range(self.vocab_size):
            word = self.decode([number])
            if word.isalnum() and self.gives_back(word):
                return self.encode(word)
        return []

    @cached_property
    def _inside(self) -> Tokenizer:
        """Encodes what does not begin a text: puts nothing before it."""
        data = without_prefix(json.loads(self.to_json()))
        if data is None:
            return self._tokenizer
        inside = Tokenizer.from_str(json.dumps(data, ensure_ascii=False))
        inside.encode_special_tokens = True
        return inside

    def _keep_names_as_text(self, vocabulary: dict[str, int], name: str) -> None:
        """Where a special token's name is a word of the model's, too, it is cut in two before the
        model sees it."""
        specials = (self.bos_id, self.eos_id, self.pad_id)
        all_names = (*SPECIAL_TOKENS, *BOS_NAMES, *EOS_NAMES, *PAD_NAMES)
        names = [token for token in all_names if vocabulary.get(token) in specials]

        def mistaken() -> str | None:
            found = (t for t in names if vocabulary[t] in self.encode(f"{t} a{t} {t}"))
            return next(found, None)

        if mistaken() is None:
            return
        before = self._tokenizer.pre_tokenizer
        cut = pre_tokenizers.Split(Regex(inside_of(names)), "isolated")
        cuts = [cut] if before is None else [before, cut]
        self._tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cuts)
        if (token := mistaken()) is not None:
            raise UserError(
                f"{name} turns the text {token!r} into the special id {vocabulary[token]}, which a "
                "document could then contain; take another tokenizer with --data.tokenizer"
            )


def _check_specials(tokenizer: Tokenizer, vocabulary: dict[str, int], name: str) -> tuple[int, int]:
    """The ids of begin and end; raises unless both exist and padding is id 1."""
    pad = first(PAD_NAMES, vocabulary)
    bos, eos = first(BOS_NAMES, vocabulary), first(EOS_NAMES, vocabulary)
    if pad is None:
        problem = f"no padding token (`<pad>` must be id {PAD_ID})"
    elif vocabulary[pad] != PAD_ID:
        problem = f"`{pad}` at id {vocabulary[pad]}, not {PAD_ID}"
    elif bos is None:
        problem = "no begin token such as `<s>`"
    elif eos is None:
        problem = "no end token such as `</s>`"
    else:
        return vocabulary[bos], vocabulary[eos]
    from lightning_embed.tokens.adoption import adopted

    try:  # so that nobody is sent to an adoption that then refuses
        adopted(json.loads(tokenizer.to_str()), name)
        way_out = f"renumber it first: {command('tokenizer', '--adopt', name)}"
    except UserError as refusal:
        way_out = f"it cannot be renumbered, either: {refusal}"
    raise UserError(f"{name} has {problem}; {way_out}")
