"""Renumber somebody else's tokenizer (GPT-2's, BERT's, T5's, Llama's): our four special ids come
first, and texts are cut into the same pieces.

It works on the JSON that the `tokenizers` library writes; the file is read by `tokenizer_json.py`.

Step by step, on a GPT-2 style file:
1. vocabulary         {"!": 0, ..., "the": 1169, "<|endoftext|>": 50256}
2. without specials   {"!": 0, ..., "the": 1169}
3. dense, after ours  {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "!": 4, ..., "the": 1173}
Merges are written with tokens, not ids, so they stay as they are, and so does the pattern that cuts
text into words; scores of a Unigram model move with their pieces. A foreign unknown token becomes
our `<unk>`, which a model that had none gets.

Of a byte-level BPE what would change the text itself is taken out, as decoding then gives it back
exactly: a normalizer (NFC in some files) and the space put before the first word. Of other kinds it
stays, because the vocabulary was made for such text: an uncased one has no capital letters.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers

from lightning_embed.errors import UserError, one_line
from lightning_embed.special_tokens import SPECIAL_TOKENS, UNK
from lightning_embed.tokens.tokenizer_json import inside_of, mark_specials, parts_of

# spaces, line ends, tabs, digits, an accent apart from its letter, other scripts, an emoji
SAMPLE = "  A line, 1234 of it;\r\n\n\tcafe\u0301 naïve 你好 🙂  def f(x):\n        return x  "
MODELS = ("BPE", "WordPiece", "WordLevel", "Unigram")
BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


def adopted(data: dict[str, Any], name: str) -> str:
    """The `tokenizer.json` text of `data` (parsed) with our four ids first.

    Raises UserError, one sentence, for a model that is none of the library's, or that would then
    cut text into other pieces.
    """
    model = data["model"]
    kind = model.setdefault("type", "BPE" if "merges" in model else "unnamed")
    if kind not in MODELS:
        raise UserError(f"{name} cannot be adopted: its model is {kind}, not {', '.join(MODELS)}")
    original = copy.deepcopy(data)
    renumber(data)
    if _has_all_bytes(original):
        exact = json.dumps(_exact(copy.deepcopy(data)), ensure_ascii=False)
        library = _opened(exact, name)
        ids = library.encode(SAMPLE, add_special_tokens=False).ids
        if library.decode(ids, skip_special_tokens=False) == SAMPLE:
            return exact
    text = json.dumps(mark_specials(data), ensure_ascii=False)
    _require_same_pieces(original, text, name)
    return text


def renumber(data: dict[str, Any]) -> None:
    """Give a file our four ids, and take out its own special tokens and what is added to texts."""
    model, foreign = data["model"], data.get("added_tokens", [])
    unigram = isinstance(model["vocab"], list)
    old = [piece for piece, _ in model["vocab"]] if unigram else []
    ids_before = {piece: n for n, piece in enumerate(old)} if unigram else dict(model["vocab"])
    dropped = {token["content"] for token in foreign if token.get("special")}
    dropped.update(SPECIAL_TOKENS, [_unknown(model)])
    kept = [token for token in foreign if token["content"] not in dropped]

    ordinary = [t for t in sorted(ids_before, key=lambda t: ids_before[t]) if t not in dropped]
    beyond = [t["content"] for t in sorted(kept, key=lambda token: token["id"])]
    tokens = (*SPECIAL_TOKENS, *ordinary, *(t for t in beyond if t not in ids_before))
    ids = {token: new for new, token in enumerate(tokens)}

    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    ours = [{"id": ids[t], "content": t, **flags, "special": True} for t in SPECIAL_TOKENS]
    data["added_tokens"] = ours + sorted(
        ({**token, "id": ids[token["content"]]} for token in kept), key=lambda token: token["id"]
    )
    if unigram:
        scores = dict(model["vocab"])
        own = [[token, 0.0] for token in SPECIAL_TOKENS]  # `mark_specials` makes them the worst
        model["vocab"] = own + [[token, scores[token]] for token in ordinary]
        model["unk_id"] = ids[UNK]
        if model.get("byte_fallback"):  # the piece `<unk>` has a better score than its bytes
            cut = {"type": "Split", "pattern": {"Regex": inside_of([UNK])}, "behavior": "Isolated"}
            cuts = [*parts_of(data.get("pre_tokenizer"), "pretokenizers"), cut | {"invert": False}]
            data["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": cuts}
    else:
        model["vocab"] = {token: ids[token] for token in (*SPECIAL_TOKENS, *ordinary)}
    if "dropout" in model or model["type"] == "BPE":
        model["dropout"] = None  # random cuts could neither be cached nor repeated
    if not _has_all_bytes(data):
        model.update({} if unigram else {"unk_token": UNK})
    data["post_processor"] = data["truncation"] = data["padding"] = None


def _unknown(model: dict[str, Any]) -> str | None:
    """The token that stands for what the vocabulary lacks."""
    if isinstance(model["vocab"], list):
        number = model.get("unk_id")
        return None if number is None else str(model["vocab"][number][0])
    return model.get("unk_token")


def _has_all_bytes(data: dict[str, Any]) -> bool:
    """Whether this is a byte-level BPE that has a token for each byte."""
    model, cuts = data["model"], parts_of(data.get("pre_tokenizer"), "pretokenizers")
    return (
        model["type"] == "BPE"
        and any(cut["type"] == "ByteLevel" for cut in cuts)
        and set(pre_tokenizers.ByteLevel.alphabet()) <= set(model["vocab"])
        and not model.get("continuing_subword_prefix")
        and not model.get("end_of_word_suffix")
    )


def _exact(data: dict[str, Any]) -> dict[str, Any]:
    for part in parts_of(data["pre_tokenizer"], "pretokenizers"):
        if part["type"] == "ByteLevel":
            part["add_prefix_space"] = False
    data["normalizer"], data["decoder"] = None, BYTES  # of its settings the decoder reads the type
    return data


def _opened(text: str, name: str) -> Tokenizer:
    try:
        library = Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exceptions
        raise UserError(f"{name} cannot be adopted: {one_line(error)}") from None
    library.encode_special_tokens = True
    library.no_truncation()
    library.no_padding()
    return library


def _require_same_pieces(original: dict[str, Any], text: str, name: str) -> None:
    """The pieces of a sample must be the same, but for how the unknown ones are called; a model
    without such a token left them out."""
    unknown = _unknown(original["model"])

    def pieces(text: str) -> list[str]:
        library = _opened(text, name)
        ids = library.encode(SAMPLE, add_special_tokens=False).ids
        found = [str(library.id_to_token(number)) for number in ids]
        return [t for t in (UNK if t == unknown else t for t in found) if unknown or t != UNK]

    if original["model"].get("dropout"):
        original["model"]["dropout"] = None
    if pieces(json.dumps(original, ensure_ascii=False)) != pieces(text):
        raise UserError(f"{name} cannot be adopted: with other ids it cuts text into other pieces")
