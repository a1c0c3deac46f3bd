"""What somebody else's model makes of its padding vector: facts, each with a verdict.

A `Subject` (`foreign.py`) is what is known of the model; `judge` looks at its padding id, row,
output head and optimizer moments and says of each: ok, finding, or note.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_embed.audit.foreign import Subject, optimizer_states, whole_number
from lightning_embed.padding.padded import row_of
from lightning_embed.pretrained.tensors import is_plain

HEAD = re.compile(
    r"(^|\.)(lm_head(\.decoder)?|head|output|output_layer|output_projection|embed_out"
    r"|predictions\.decoder)\.weight$"
)
MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "sum")
AT_RISK = "padding can be predicted, and training moves its row, unless its logit is masked"
ROLES = {"eos": "end-of-sequence", "bos": "begin-of-sequence", "unk": "the unknown token"}


@dataclass(frozen=True)
class Fact:
    """One line of the report, and its numbers for `--json`."""

    verdict: Literal["ok", "finding", "note"]
    about: str
    text: str
    values: dict[str, Any] = field(default_factory=dict)


# -- verdicts: every rule is here ------------------------------------------------------------


def judge(subject: Subject) -> Iterator[Fact]:
    """Every fact about a model's padding, with its verdict."""
    yield from _judge_id(subject)
    kept: list[tuple[str, Tensor]] = []
    for name in subject.embeddings:
        weight = subject.tensors.entries[name].read()
        twin = next((other for other, known in kept if _same_bits(known, weight)), None)
        if twin is not None:
            yield Fact("note", "embedding", f"{name} is the same matrix as {twin}")
        elif not weight.is_floating_point():
            yield Fact("note", "embedding", f"{name} is stored as {weight.dtype}: not looked at")
        else:
            kept.append((name, weight))
            yield _judge_row(subject, name, weight)
            yield from _judge_moments(subject, name, weight)
    if kept:
        yield from _judge_head(subject, [weight for _, weight in kept])


def _judge_id(s: Subject) -> Iterator[Fact]:
    stated, tokenizer = s.config.get("pad_token_id"), s.tokenizer_padding
    piece = s.roles.get("pad")
    values = {"config": whole_number(stated), "tokenizer": tokenizer, "used": s.padding_idx}
    if stated is not None and whole_number(stated) is None:
        yield Fact("finding", "padding id", f"config's is {stated!r}, not a whole number", values)
    elif s.padding_idx is None:
        yield Fact("note", "padding id", "unknown; give --padding_idx N if you know it", values)
    elif not s.config:
        yield Fact("ok", "padding id", f"{s.padding_idx}, by {s.named_by}", values)
    elif stated is None and tokenizer is not None:
        text = f"config has none, the tokenizer pads with {piece!r} = {tokenizer}"
        yield Fact("finding", "padding id", text, values)
    elif stated is not None and tokenizer is not None and stated != tokenizer:
        text = f"{stated} in config, but the tokenizer pads with {piece!r} = {tokenizer}"
        yield Fact("finding", "padding id", text, values)
    elif stated is not None and tokenizer is None and s.tokens:
        text = f"{stated} in config, but the tokenizer has no padding"
        if piece is not None:
            text = f"{stated} in config, but the tokenizer's padding {piece!r} has no id"
        yield Fact("finding", "padding id", text, values)
    else:
        agreed = stated == tokenizer == s.padding_idx
        where = "config and tokenizer" if agreed else s.named_by
        yield Fact("ok", "padding id", f"{s.padding_idx}, by {where}", values)
    generating = s.generation.get("pad_token_id")
    if stated is not None and generating is not None and generating != stated:
        text = f"{generating!r} in generation_config.json, but {stated!r} in config.json"
        values = {"generation": whole_number(generating), "config": whole_number(stated)}
        yield Fact("finding", "padding id", text, values)
    if s.padding_idx is None:
        return
    if not 0 <= s.padding_idx < s.rows:
        text = f"{s.padding_idx} is outside the {s.rows:,} rows of {s.embeddings[0]}"
        if -s.rows <= s.padding_idx < 0:
            text += f"; nn.Embedding takes it for row {s.padding_idx % s.rows:,}"
        yield Fact("finding", "padding id", text, {"rows": s.rows})
    shared = [role for role in ROLES if s.padding_idx in s.role_ids(role)]
    for role in shared:
        text = f"{s.padding_idx} is also {ROLES[role]}: leaving out padding leaves that out too"
        yield Fact("finding", f"padding is {role}", text, {"role": role})
    if not shared and any(s.role_ids(role) for role in ROLES):
        text = f"{s.padding_idx} is no other special token"
        yield Fact("ok", "padding is", text)


def _judge_row(s: Subject, name: str, weight: Tensor) -> Fact:
    norms = _norms(weight)
    if s.padding_idx is None:
        zero = (norms == 0).nonzero().flatten().tolist()
        shown = ", ".join(map(str, zero[:5])) + (" ..." if len(zero) > 5 else "")
        text = f"{name}: rows that are zero: {shown or 'none'}"
        return Fact("note", "row", text, {"embedding": name, "zero_rows": len(zero)})
    index = s.padding_idx
    if not 0 <= index < weight.shape[0]:
        return Fact("note", "row", f"{name} has no row {index}", {"embedding": name})
    row = row_of(weight, index)
    assert row is not None  # only a shard lacks rows
    row = row.double()
    others = torch.cat([norms[:index], norms[index + 1 :]])
    others = others[others.isfinite()]
    norm = float(norms[index])
    median = float(others.median()) if len(others) else None
    larger = float((others < norm).double().mean()) * 100 if len(others) else None
    values: dict[str, Any] = {
        "embedding": name,
        "shape": list(weight.shape),
        "row": index,
        "norm": norm if isfinite(norm) else None,
        "median_norm": median,
        "larger_than_percent": larger,
    }
    where = f"{name}[{index}]"
    if not row.isfinite().all():
        bad = int((~row.isfinite()).sum())
        kind = "NaN" if row.isnan().any() else "infinite"
        text = f"{where} is {kind} in {bad} of {len(row)} places"
        return Fact("finding", "row", text, values | {"state": "not finite"})
    if row.any():
        text = f"{where} is not zero: norm {norm:.3g}"
        if median is not None:
            text += f", the others' median {median:.3g}, larger than {larger:.0f} % of them"
        return Fact("finding", "row", text, values | {"state": "not zero"})
    if row.signbit().any():
        text = f"{where} is -0 in {int(row.signbit().sum())} of {len(row)} places: equal to zero,"
        text += " but a product wrote it, and a product keeps NaN as well"
        return Fact("finding", "row", text, values | {"state": "minus zero"})
    text = f"{where} is zero, bit by bit"
    if median is not None:
        text += f"; the others' median norm is {median:.3g}"
    return Fact("ok", "row", text, values | {"state": "zero"})


def _judge_head(s: Subject, embeddings: list[Tensor]) -> Iterator[Fact]:
    stated = s.config.get("tie_word_embeddings")
    if s.ours:
        tied = "model.head.weight" not in s.tensors.entries
        text = "tied" if tied else "a matrix of its own"
        text += "; padding's logit is minus infinity, so it is never predicted"
        yield Fact("ok", "head", text, {"tied": tied})
        return
    rows = len(embeddings[0])
    name = next((x for x in s.tensors.matrices(rows) if HEAD.search(x)), None)
    if name is None:
        text = "none in the file: tied to the embedding, or the model has none"
        if stated is True:
            text = f"tied, says config: {AT_RISK}"
        elif stated is False:
            text = "not tied, says config, and no head in the file"
        yield Fact("note", "head", text, {"tied": stated if isinstance(stated, bool) else None})
        return
    head = s.tensors.entries[name].read()
    same = any(_same_bits(head, embedding) for embedding in embeddings)
    values: dict[str, Any] = {"head": name, "tied": same}
    if stated is True and not same:
        text = f"config says tied, but {name} is another matrix than the embedding"
        yield Fact("finding", "head", text, values)
    elif same:
        yield Fact("note", "head", f"{name} is the embedding: {AT_RISK}", values)
    else:
        text = f"{name} is a matrix of its own: padding can be predicted, the embedding's row"
        text += " has no part in it"
        yield Fact("note", "head", text, values)


def _judge_moments(s: Subject, name: str, weight: Tensor) -> Iterator[Fact]:
    """Optimizers number their parameters, so a moment is told by its shape."""
    if s.padding_idx is None or not 0 <= s.padding_idx < len(weight):
        return
    found = [
        (kind, state[kind])
        for state in optimizer_states(s.tensors.checkpoint)
        for kind in MOMENTS
        if is_plain(state.get(kind)) and state[kind].shape == weight.shape
    ]
    if not found:
        return
    twins = [
        other
        for other in s.tensors.matrices(rows=len(weight))
        if s.tensors.entries[other].shape == tuple(weight.shape)
        and not _same_bits(s.tensors.entries[other].read(), weight)
    ]
    moved: dict[str, int] = {}
    for kind, moment in found:
        moved[kind] = moved.get(kind, 0) + bool(moment[s.padding_idx].any())
    values = {"embedding": name, "moved": moved, "same_shape": twins}
    touched = ", ".join(kind for kind, count in moved.items() if count)
    if not touched:
        text = f"{', '.join(moved)} of {name}[{s.padding_idx}] are zero"
        yield Fact("ok", "moments", text, values)
    elif any(count > len(twins) for count in moved.values()):
        text = f"{touched} of {name}[{s.padding_idx}] not zero: the next step moves the row"
        yield Fact("finding", "moments", text, values)
    else:
        text = f"{touched} not zero in row {s.padding_idx} of {name} or of {', '.join(twins)}"
        yield Fact("note", "moments", text, values)


# -- looking ---------------------------------------------------------------------------------


def _norms(weight: Tensor) -> Tensor:
    """Norm of each row in float64, a piece at a time: the matrix may be many gigabytes."""
    return torch.cat([part.double().norm(dim=1) for part in weight.detach().split(1024)])


def _same_bits(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    one, other = (x.detach().contiguous().view(torch.uint8) for x in (one, other))
    return torch.equal(one, other)
