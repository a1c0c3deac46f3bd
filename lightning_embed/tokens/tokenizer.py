"""Text to ids and back: one thin class around the `tokenizers` library.

A byte-level BPE or a character vocabulary is trained with our four ids first; somebody else's
`tokenizer.json` is taken if it has the special tokens (`<pad>` is id 1) and is renumbered by
`adoption.py` if not. The names of special tokens in a user's text are text.

What a `tokenizer.json` does not keep, or keeps and should not: that literal `<pad>` in a text is
text; truncation and padding of whoever made it. `TextTokenizer.__init__` sets all three.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from lightning_embed.atomic import replacing
from lightning_embed.errors import UserError, one_line
from lightning_embed.processes import command
from lightning_embed.sources.hub_probe import require_hub
from lightning_embed.special_tokens import PAD_ID, SPECIAL_TOKENS, UNK

IdType: TypeAlias = type[np.uint8 | np.uint16 | np.uint32]
SMALLEST_VOCABULARY = len(SPECIAL_TOKENS) + 256  # our four and every byte

BOS_NAMES = ("<s>", "<|begin_of_text|>", "<|endoftext|>", "[CLS]", "<bos>")
EOS_NAMES = ("</s>", "<|end_of_text|>", "<|endoftext|>", "[SEP]", "<eos>")
PAD_NAMES = ("<pad>", "[PAD]", "<|pad|>", "<PAD>", "<|padding|>", "<|finetune_right_pad_id|>")

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
        self.bos_id, self.eos_id = _check_specials(vocabulary, name)
        self.pad_id: int = PAD_ID
        self.unk_id: int | None = vocabulary.get(UNK)
        self._check_text_stays_text(vocabulary, name)

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
        """Somebody else's byte-level BPE, renumbered to our four ids (see `adoption.py`)."""
        from lightning_embed.tokens.adoption import adopted

        text = read_tokenizer_json(name_or_file)
        return cls.from_json(adopted(_parse(text, name_or_file), name_or_file), name_or_file)

    @classmethod
    def from_json(cls, text: str, name: str = "tokenizer.json") -> TextTokenizer:
        """The tokenizer that `to_json` wrote, or any `tokenizer.json`'s text."""
        data = _mark_specials(_parse(text, name))
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

    def encode(self, text: str) -> list[int]:
        """The ids of `text` alone, without `<s>` and `</s>`."""
        (encoding,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        ids: list[int] = encoding.ids
        return ids

    def encode_documents(self, texts: list[str]) -> list[np.ndarray]:
        """`<s> text </s>` for each text, encoded in parallel, of `id_type`."""
        documents = list[np.ndarray]()
        for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False):
            document: Any = np.empty(len(encoding) + 2, self.id_type)
            document[0], document[1:-1], document[-1] = self.bos_id, encoding.ids, self.eos_id
            documents.append(document)
        return documents

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        text: str = self._tokenizer.decode(
            [int(i) for i in ids], skip_special_tokens=skip_special_tokens
        )
        return text

    def piece(self, number: int) -> str:
        """How the vocabulary spells an id: a part of a character has no text of its own."""
        return self._tokenizer.id_to_token(number) or ""

    def _check_text_stays_text(self, vocabulary: dict[str, int], name: str) -> None:
        for token in (*SPECIAL_TOKENS, *BOS_NAMES, *EOS_NAMES, *PAD_NAMES):
            own = vocabulary.get(token)
            if own not in (self.bos_id, self.eos_id, self.pad_id):
                continue
            if own in self.encode(f"{token} a{token} {token}"):
                raise UserError(
                    f"{name} turns the text {token!r} into the special id {own}, which a document "
                    "could then contain; take another tokenizer with --data.tokenizer"
                )


def read_tokenizer_json(name_or_file: str) -> str:
    """The text of a `tokenizer.json`: a file, a folder's, the local cache's or the Hub's.

    Raises FileNotFoundError for a path that is not there, UserError for a Hub name that cannot be
    had; both in one line.
    """
    path = Path(name_or_file).expanduser()
    if path.is_dir():
        path = path / "tokenizer.json"
    if path.is_file():
        return _read(path)
    # a name on the Hub is `name` or `owner/name`; everything else was meant as a path
    if path.suffix == ".json" or name_or_file.startswith((".", "/", "~")) or len(path.parts) > 2:
        raise FileNotFoundError(f"no tokenizer at {path}: correct --data.tokenizer")
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError

    try:
        cached = try_to_load_from_cache(name_or_file, "tokenizer.json")
        if not isinstance(cached, str):
            require_hub(name_or_file, "--data.tokenizer (--data.files for the text)")
            cached = hf_hub_download(name_or_file, "tokenizer.json")
    except (OSError, EntryNotFoundError, HFValidationError) as error:
        raise UserError(
            f"no tokenizer.json of {name_or_file!r} on the Hub or in its local cache "
            f"({type(error).__name__}; HF_HUB_OFFLINE=1 forbids asking): correct --data.tokenizer, "
            "or give a local file with it"
        ) from None
    return _read(Path(cached))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}): not a tokenizer") from None


def _parse(text: str, name: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{name} is not JSON ({error}): not a tokenizer") from None
    if not isinstance(data, dict) or not isinstance(data.get("model"), dict):
        raise UserError(f"{name} has no 'model': not a tokenizer.json of the tokenizers library")
    return data


def _first(names: tuple[str, ...], vocabulary: dict[str, int]) -> str | None:
    return next((name for name in names if name in vocabulary), None)


def _check_specials(vocabulary: dict[str, int], name: str) -> tuple[int, int]:
    """The ids of begin and end; raises unless both exist and padding is id 1."""
    way_out = f"renumber it first: {command('tokenizer', '--adopt', name)}"
    pad = _first(PAD_NAMES, vocabulary)
    if pad is None:
        raise UserError(f"{name} has no padding token (`<pad>` must be id {PAD_ID}); {way_out}")
    if vocabulary[pad] != PAD_ID:
        raise UserError(f"{name} has `{pad}` at id {vocabulary[pad]}, not {PAD_ID}; {way_out}")
    bos, eos = _first(BOS_NAMES, vocabulary), _first(EOS_NAMES, vocabulary)
    if bos is None or eos is None:
        missing = "begin" if bos is None else "end"
        raise UserError(f"{name} has no {missing} token such as `<s>` or `</s>`; {way_out}")
    return vocabulary[bos], vocabulary[eos]


def _mark_specials(data: dict[str, Any]) -> dict[str, Any]:
    """Make sure the library knows bos, eos, pad and unk as special, and never as a piece of text.

    Only a special token can be encoded as text and skipped in decoding. A Unigram model (XLM-R)
    gives its specials the best score of all, so literal `<pad>` in a text would win as a piece:
    there the score becomes worse than spelling the name out.
    """
    model, added = data["model"], data.setdefault("added_tokens", [])
    pieces = model.get("vocab", {})
    unigram = isinstance(pieces, list)
    ids = {piece[0]: i for i, piece in enumerate(pieces)} if unigram else dict(pieces)
    ids |= {token["content"]: token["id"] for token in added}
    for names in (BOS_NAMES, EOS_NAMES, PAD_NAMES, (UNK,)):
        special = _first(names, ids)
        if special is None:
            continue
        entry = next((token for token in added if token["content"] == special), None)
        if entry is None:
            flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            added.append(entry := {"id": ids[special], "content": special, **flags})
        entry["special"] = True
        if unigram and ids[special] < len(pieces):
            worst = min(score for _, score in pieces)
            pieces[ids[special]] = [special, min(-1000.0, worst)]
    added.sort(key=lambda token: token["id"])
    return data
