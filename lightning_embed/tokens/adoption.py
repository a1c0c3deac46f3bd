"""Renumber somebody else's byte-level BPE (GPT-2's, Llama 3's): our four special ids come first,
texts are cut into the same pieces, and decoding gives the text back exactly.

It works on the JSON that the `tokenizers` library writes; the file is read by `tokenizer.py`.

Step by step, on a GPT-2 style file:
1. vocabulary         {"!": 0, ..., "the": 1169, "<|endoftext|>": 50256}
2. without specials   {"!": 0, ..., "the": 1169}
3. dense, after ours  {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "!": 4, ..., "the": 1173}
Merges are written with tokens, not ids, so they stay as they are, and so does the pattern that cuts
text into words. What would change the text itself is taken out, as decoding must give it back
exactly: a normalizer (NFC in some files) and the space put before the first word.
"""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers

from lightning_embed.errors import UserError, one_line
from lightning_embed.special_tokens import SPECIAL_TOKENS

# spaces, line ends, tabs, digits, an accent apart from its letter, other scripts, an emoji
SAMPLE = "  A line, 1234 of it;\r\n\n\tcafe\u0301 naïve 你好 🙂  def f(x):\n        return x  "


def adopted(data: dict[str, Any], name: str) -> str:
    """The `tokenizer.json` text of `data` (parsed, may be changed) with our four ids first.

    Raises UserError, one sentence, for anything but a byte-level BPE.
    """
    _require_byte_level_bpe(data, name)
    model, foreign = data["model"], data.get("added_tokens", [])
    dropped = {token["content"] for token in foreign if token.get("special")}
    dropped.update(SPECIAL_TOKENS)
    kept = [token for token in foreign if token["content"] not in dropped]

    ordinary = [t for t in sorted(model["vocab"], key=model["vocab"].get) if t not in dropped]
    beyond = [t["content"] for t in sorted(kept, key=lambda token: token["id"])]
    tokens = (*SPECIAL_TOKENS, *ordinary, *(t for t in beyond if t not in model["vocab"]))
    ids = {token: new for new, token in enumerate(tokens)}

    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    ours = [{"id": ids[t], "content": t, **flags, "special": True} for t in SPECIAL_TOKENS]
    data["added_tokens"] = ours + sorted(
        ({**token, "id": ids[token["content"]]} for token in kept), key=lambda token: token["id"]
    )
    model["vocab"] = {token: ids[token] for token in (*SPECIAL_TOKENS, *ordinary)}
    model["dropout"] = None  # random cuts could neither be cached nor repeated
    for part in _parts(data.get("pre_tokenizer")):
        if part["type"] == "ByteLevel":
            part["add_prefix_space"] = False
    data["normalizer"] = data["post_processor"] = data["truncation"] = data["padding"] = None
    data["decoder"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}
    data["decoder"]["use_regex"] = True  # of all four the decoder only reads its type
    text = json.dumps(data, ensure_ascii=False)
    _require_exact(text, name)
    return text


def _parts(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if pre_tokenizer is None:
        return []
    parts: list[dict[str, Any]] = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    return parts


def _require_byte_level_bpe(data: dict[str, Any], name: str) -> None:
    model = data["model"]
    kind = model.get("type") or ("BPE" if "merges" in model else "unnamed")
    if kind != "BPE":
        problem = f"its model is {kind}"
    elif all(part["type"] != "ByteLevel" for part in _parts(data.get("pre_tokenizer"))):
        problem = "its BPE does not work on bytes"
    elif not set(pre_tokenizers.ByteLevel.alphabet()) <= set(model["vocab"]):
        problem = "its vocabulary lacks some of the 256 bytes"
    elif model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        problem = "it marks the inside or the end of words, so that text does not come back exactly"
    else:
        return
    raise UserError(f"{name} cannot be adopted: only byte-level BPE can, and {problem}")


def _require_exact(text: str, name: str) -> None:
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exceptions
        reason = one_line(error)
        raise UserError(f"{name} cannot be adopted: {reason}") from None
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    ids = tokenizer.encode(SAMPLE, add_special_tokens=False).ids
    if tokenizer.decode(ids, skip_special_tokens=False) != SAMPLE:
        raise UserError(f"{name} cannot be adopted: its text does not come back exactly")
