"""An evaluation taken apart: figures with intervals of a whole text, of each source, of each range
of positions in the window; and of the difference between two models.

Intervals are over files where there are at least ten, as functions of one file are alike; else over
documents; of a single document over its windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from lightning_embed.evaluation.intervals import FEWEST, Interval, ratio_interval
from lightning_embed.evaluation.metrics import WindowScores, position_ranges

Unit = Literal["files", "documents", "windows"]


@dataclass(frozen=True)
class Scored:
    """A text of N windows, and what a model made of it.

    Attributes:
        scores: of each window.
        document, source: `(N,)` numbers of each window's document and source.
        names: of sources.
        max_length: positions in the longest window.
        named: of the sources of a mixture.
        named_of_source: `(sources,)` which of these each source belongs to.
    """

    scores: WindowScores
    document: np.ndarray
    source: np.ndarray
    names: list[str]
    max_length: int
    named: Sequence[str] = ()
    named_of_source: np.ndarray | None = None

    @property
    def seen(self) -> np.ndarray:
        """(N,) bool: windows that were evaluated."""
        found: np.ndarray = self.scores.tokens.sum(axis=1) > 0
        return found


@dataclass(frozen=True)
class Part:
    """A part of a text, and the figures of it.

    Attributes:
        name: of the source, or the range of positions.
        documents, windows, tokens, n_bytes: how much it is; positions have no bytes of their own.
        figures: "loss" (nats a token), "perplexity", "accuracy", "bits_per_byte".
    """

    name: str
    documents: int
    windows: int
    tokens: int
    n_bytes: int
    figures: dict[str, Interval]


def units_of(scored: Scored) -> tuple[Unit, np.ndarray]:
    """What intervals are over, and the number `(N,)` of each window's unit."""
    files, documents = _counts(scored)
    if files >= FEWEST:
        return "files", scored.source
    if documents > 1:
        return "documents", scored.document
    return "windows", np.arange(len(scored.document))


def _counts(scored: Scored) -> tuple[int, int]:
    """Files and documents that were evaluated."""
    files, documents = (len(np.unique(x[scored.seen])) for x in (scored.source, scored.document))
    return files, documents


def whole(scored: Scored) -> Part:
    """All of the text that was evaluated."""
    return _part("", scored, scored.seen, units_of(scored)[1])


def by_source(scored: Scored) -> tuple[Unit, list[Part]]:
    """Each source, the hardest first; intervals over its documents, or over its windows where every
    source is one document."""
    files, documents = _counts(scored)
    over: Unit = "documents" if documents > files else "windows"
    units = scored.document if over == "documents" else np.arange(len(scored.document))
    order = np.flatnonzero(scored.seen)
    order = order[np.argsort(scored.source[order], kind="stable")]
    numbers, begins = np.unique(scored.source[order], return_index=True)
    parts = [
        _part(scored.names[number], scored, chosen, units)
        for number, chosen in zip(numbers, np.split(order, begins[1:]), strict=True)
    ]
    return over, sorted(parts, key=lambda part: -part.figures["bits_per_byte"].value)


def by_named_source(scored: Scored) -> tuple[Unit, list[Part]]:
    """The same of each source of a mixture, which has many files: intervals over these where there
    are ten in all, else as `by_source`."""
    if scored.named_of_source is None:
        return "files", []
    over, parts = units_of(scored)[0], scored.named_of_source[scored.source]
    groups = replace(scored, source=parts, names=list(scored.named))
    units = units_of(scored)[1]
    chosen = [scored.seen & (parts == number) for number in np.unique(parts[scored.seen])]
    found = [_part(groups.names[parts[each][0]], groups, each, units) for each in chosen]
    return over, sorted(found, key=lambda part: -part.figures["bits_per_byte"].value)


def by_position(scored: Scored) -> list[Part]:
    """Each range of positions in the window that has targets."""
    units, parts = units_of(scored)[1], []
    for column, (start, end) in enumerate(position_ranges(scored.max_length)):
        nll, correct, tokens = (x[:, column : column + 1] for x in scored.scores[:3])
        scores = WindowScores(nll, correct, tokens, np.zeros_like(scored.scores.n_bytes))
        there = replace(scored, scores=scores)
        if there.seen.any():
            parts.append(_part(f"{start}-{end - 1}", there, there.seen, units))
    return parts


def difference(one: Scored, other: Scored) -> tuple[Unit, Interval]:
    """Bits per byte of `one` less those of `other` on the same documents, with an interval over
    pairs; of a single document over its windows, where both are cut into the same."""
    over, units = units_of(one)
    nats, theirs = (x.scores.nll.sum(axis=1) for x in (one, other))
    n_bytes = one.scores.n_bytes
    if over != "windows" or not np.array_equal(n_bytes, other.scores.n_bytes):
        if over == "windows":
            over, units = "documents", one.document
        unit_of_document = np.zeros(int(one.document.max()) + 1, np.int64)
        unit_of_document[one.document] = units
        mine, its = unit_of_document[one.document], unit_of_document[other.document]
        count = int(mine.max()) + 1
        nats, theirs = _sums(mine, nats, count), _sums(its, theirs, count)
        n_bytes = _sums(mine, n_bytes, count)
    return over, ratio_interval((nats - theirs) / np.log(2), n_bytes)


def _sums(units: np.ndarray, values: np.ndarray, count: int = 0) -> np.ndarray:
    return np.bincount(units, values, minlength=count)


def _part(name: str, scored: Scored, chosen: np.ndarray, units: np.ndarray) -> Part:
    """Figures of the chosen windows."""
    numbers = np.unique(units[chosen], return_inverse=True)[1]
    nll, correct, tokens = (_sums(numbers, x[chosen].sum(axis=1)) for x in scored.scores[:3])
    n_bytes = _sums(numbers, scored.scores.n_bytes[chosen])
    loss = ratio_interval(nll, tokens)
    found: dict[str, Any] = {
        "loss": loss,
        "perplexity": _each(loss, np.exp),
        "accuracy": _each(ratio_interval(correct, tokens), lambda x: np.minimum(x, 1)),
    }
    if n_bytes.any():
        found["bits_per_byte"] = ratio_interval(nll / np.log(2), n_bytes)
    return Part(
        name,
        documents=len(np.unique(scored.document[chosen])),
        windows=len(scored.document[chosen]),
        tokens=int(tokens.sum()),
        n_bytes=int(n_bytes.sum()),
        # none of these can be negative
        figures={key: replace(x, low=float(np.maximum(x.low, 0))) for key, x in found.items()},
    )


def _each(interval: Interval, change: Any) -> Interval:
    """The interval of a figure that grows with another one."""
    value, low, high = (float(change(x)) for x in (interval.value, interval.low, interval.high))
    return replace(interval, value=value, low=low, high=high)
