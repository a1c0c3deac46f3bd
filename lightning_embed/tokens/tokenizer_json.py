"""A `tokenizer.json`: found by name, parsed, its special tokens marked as such.

What `tokenizer.py` makes of it is a `TextTokenizer`; what `adoption.py` does, another such file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

from lightning_embed.errors import UserError
from lightning_embed.sources.hub_probe import require_hub
from lightning_embed.sources.hub_trouble import told
from lightning_embed.special_tokens import UNK

BOS_NAMES = ("<s>", "<|begin_of_text|>", "<|endoftext|>", "[CLS]", "<bos>")
EOS_NAMES = ("</s>", "<|end_of_text|>", "<|endoftext|>", "[SEP]", "<eos>")
PAD_NAMES = ("<pad>", "[PAD]", "<|pad|>", "<PAD>", "<|padding|>", "<|finetune_right_pad_id|>")
PREFIXES = (("Metaspace", "prepend_scheme", "never"), ("ByteLevel", "add_prefix_space", False))
UNK_NAMES = (UNK, "[UNK]", "<UNK>", "<|unk|>")


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
            with told(name_or_file):
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


def parse(text: str, name: str) -> dict[str, Any]:
    """The file's content. Raises UserError for what is no tokenizer."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{name} is not JSON ({error}): not a tokenizer") from None
    if not isinstance(data, dict) or not isinstance(data.get("model"), dict):
        raise UserError(f"{name} has no 'model': not a tokenizer.json of the tokenizers library")
    return data


def parts_of(component: dict[str, Any] | None, within: str) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, sequences in sequences laid out; `within` is the
    name under which a sequence has its own."""
    if component is None:
        return []
    if component["type"] != "Sequence":
        return [component]
    return [part for inner in component[within] for part in parts_of(inner, within)]


def without_prefix(data: dict[str, Any]) -> dict[str, Any] | None:
    """The same file (`data` is changed) without what puts something before every text; None where
    nothing does, or where words are told apart first, each of which then gets its mark."""
    found = False
    cuts = parts_of(data.get("pre_tokenizer"), "pretokenizers")
    for kind, setting, off in PREFIXES:
        if cuts and cuts[0]["type"] == kind and cuts[0].get(setting) not in (off, None):
            cuts[0][setting], found = off, True
    steps = parts_of(data.get("normalizer"), "normalizers")
    if any(step["type"] == "Prepend" for step in steps):
        kept = [step for step in steps if step["type"] != "Prepend"]
        data["normalizer"], found = {"type": "Sequence", "normalizers": kept}, True
    return data if found else None


def inside_of(names: Iterable[str]) -> str:
    """A pattern for the first character of each of these names, where the rest follows: cutting
    there keeps a model from ever seeing the name."""
    return "|".join(f"{re.escape(n[0])}(?={re.escape(n[1:])})" for n in dict.fromkeys(names))


def first(names: tuple[str, ...], vocabulary: Container[str]) -> str | None:
    return next((name for name in names if name in vocabulary), None)


def mark_specials(data: dict[str, Any]) -> dict[str, Any]:
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
        special = first(names, ids)
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
