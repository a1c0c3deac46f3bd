"""What the files of somebody else's model say of its padding: config, tokenizer, tensors' names.

Nothing is judged here (`judge.py`), and no code in the files is run (`tensors.py`).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_embed.errors import UserError
from lightning_embed.padding.padded import plain_name
from lightning_embed.pretrained.tensors import Tensors, open_tensors, read_json
from lightning_embed.special_tokens import PAD_ID

EMBEDDING = re.compile(
    r"(embed_tokens|wte|embed_in|embeddings?|(^|[._])emb(ed)?)\.weight$|^(model\.)*shared\.weight$"
)
NOT_TOKENS = re.compile(r"posi|pos_|token_type|segment|relative|rotary|patch|time|wpe")
OURS = {"qk_norm", "scale_embedding", "schedule_steps"}  # settings of `LanguageModel`
NAMED_PADDING = ("<pad>", "[PAD]")
ROLES = ("pad", "eos", "bos", "unk")


@dataclass
class Subject:
    """All that is known of a model before any verdict."""

    tensors: Tensors
    config: dict[str, Any]
    generation: dict[str, Any]
    tokens: dict[str, int]  # every piece whose id is told, by content
    roles: dict[str, str]  # "pad", "eos", ...: the piece that plays it
    padding_idx: int | None
    named_by: str
    embeddings: list[str]
    ours: bool

    @property
    def rows(self) -> int:
        return self.tensors.entries[self.embeddings[0]].shape[0]

    @property
    def tokenizer_padding(self) -> int | None:
        return self.tokens.get(self.roles.get("pad", ""))

    def role_ids(self, role: str) -> list[int]:
        """The ids config or, where it is silent, the tokenizer gives a role; config may list."""
        given = self.config.get(f"{role}_token_id")
        if given is None:
            given = self.tokens.get(self.roles.get(role, ""))
        ids = map(whole_number, given if isinstance(given, list) else [given])
        return [number for number in ids if number is not None]


def examine(path: Path, padding_idx: int | None) -> Subject:
    """Read a folder or a file; raises UserError where that cannot be done."""
    tensors = open_tensors(path)
    folder = path if path.is_dir() else None
    config = read_json(folder / "config.json") if folder else {}
    if isinstance(config.get("text_config"), dict):  # of models that also see or hear
        config = config["text_config"] | {k: v for k, v in config.items() if v is not None}
    generation = read_json(folder / "generation_config.json") if folder else {}
    tokens, roles = _read_tokenizer(folder) if folder else ({}, {})
    parameters = tensors.checkpoint.get("hyper_parameters")
    parameters = parameters if isinstance(parameters, dict) else {}
    ours = "model.embedding.weight" in tensors.entries and parameters.keys() >= OURS
    embeddings = _find_embeddings(tensors)
    if not embeddings:
        raise UserError(f"none of the {len(tensors.entries)} tensors in {path} embeds tokens")
    rows = tensors.entries[embeddings[0]].shape[0]
    if padding_idx is not None and not -rows <= padding_idx < rows:
        raise UserError(f"--padding_idx {padding_idx} is outside the {rows:,} rows there are")
    candidates = {
        "--padding_idx": padding_idx if padding_idx is None else padding_idx % rows,
        "config.json": whole_number(config.get("pad_token_id")),
        "generation_config.json": whole_number(generation.get("pad_token_id")),
        "the tokenizer": tokens.get(roles.get("pad", "")),
        "this package": PAD_ID if ours else None,
        "hyper_parameters": whole_number(
            parameters.get("padding_idx", parameters.get("pad_token_id"))
        ),
    }
    named_by = next((name for name, idx in candidates.items() if idx is not None), "")
    return Subject(
        tensors,
        config,
        generation,
        tokens,
        roles,
        candidates.get(named_by),
        named_by,
        embeddings,
        ours,
    )


def _find_embeddings(tensors: Tensors) -> list[str]:
    if len(tensors.entries) == 1 and "weight" in tensors.entries:  # of an nn.Embedding alone
        return tensors.matrices()
    names = ((name, plain_name(name)) for name in tensors.matrices())
    return [raw for raw, name in names if EMBEDDING.search(name) and not NOT_TOKENS.search(name)]


def _read_tokenizer(folder: Path) -> tuple[dict[str, int], dict[str, str]]:
    """Ids by piece, and pieces by role, from whichever of a tokenizer's files there are."""
    settings = read_json(folder / "tokenizer_config.json")
    whole = read_json(folder / "tokenizer.json")
    special = read_json(folder / "special_tokens_map.json")
    pieces: list[tuple[Any, Any]] = []
    vocab = _part(whole, "model").get("vocab")
    if isinstance(vocab, list):  # of a Unigram model: [piece, score], the id is the place
        pieces += [(row[0], i) for i, row in enumerate(vocab) if isinstance(row, list) and row]
    older = (read_json(folder / name) for name in ("vocab.json", "added_tokens.json"))
    for table in (vocab, *older):
        pieces += table.items() if isinstance(table, dict) else []
    listed = whole.get("added_tokens")
    for added in listed if isinstance(listed, list) else []:
        if isinstance(added, dict):
            pieces.append((added.get("content"), added.get("id")))
    for number, added in _part(settings, "added_tokens_decoder").items():
        if isinstance(added, dict) and str(number).isdecimal():
            pieces.append((added.get("content"), int(number)))
    tokens = {p: i for p, i in pieces if isinstance(p, str) and whole_number(i) is not None}
    roles = {}
    for role in ROLES:
        named = settings.get(f"{role}_token") or special.get(f"{role}_token")
        if isinstance(named, dict):
            named = named.get("content")
        if isinstance(named, str):
            roles[role] = named
    if "pad" not in roles:  # files that leave it to the tokenizer's class
        by_name = next((name for name in NAMED_PADDING if name in tokens), None)
        fallback = _part(whole, "padding").get("pad_token") or by_name
        if isinstance(fallback, str):
            roles["pad"] = fallback
    return tokens, roles


def _part(table: dict[str, Any], name: str) -> dict[str, Any]:
    found = table.get(name)
    return found if isinstance(found, dict) else {}


def whole_number(value: Any) -> int | None:
    """The value where it is a whole number; JSON may hold anything in its place."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def optimizer_states(checkpoint: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The state of every parameter of every optimizer in a checkpoint."""
    listed = checkpoint.get("optimizer_states")
    single = [checkpoint.get("optimizer_state_dict"), checkpoint.get("optimizer")]
    for optimizer in listed if isinstance(listed, list) else single:
        if isinstance(optimizer, dict):
            for state in _part(optimizer, "state").values():
                if isinstance(state, dict):
                    yield state
