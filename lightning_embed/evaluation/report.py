"""What `test` found, as lines of at most 80 columns or as one JSON object."""

import math
from dataclasses import dataclass, replace
from typing import Any

from lightning_embed.console import say, short
from lightning_embed.evaluation.breakdown import (
    Part,
    Scored,
    Unit,
    by_named_source,
    by_position,
    by_source,
    difference,
    units_of,
    whole,
)
from lightning_embed.evaluation.intervals import COVERAGE, Interval
from lightning_embed.evaluation.metrics import Evaluation
from lightning_embed.tokens.lossy import LOSSY

SOURCES_SHOWN = 10
FEWEST_OF_ROW = 3.0  # effective units, below which a row's interval would be too wide to tell much
PERCENT = f"{100 * COVERAGE:.0f} %"


@dataclass(frozen=True)
class Tested:
    """One checkpoint's evaluation.

    Attributes:
        checkpoint: as it was found.
        found: the figures.
        scored: what intervals and tables are made of.
        eval_overlap: tokens of context before each later window.
        keeps_text: whether the tokens give the text back; bits per byte compare only if so.
    """

    checkpoint: str
    found: Evaluation
    scored: Scored
    eval_overlap: int
    keeps_text: bool = True


def say_checkpoint(tested: Tested) -> None:
    """Which checkpoint was evaluated, and how where that changes the figures."""
    overlap = f"   eval_overlap {tested.eval_overlap}" if tested.eval_overlap else ""
    say("tested", f"{tested.checkpoint}{overlap}")


def say_details(tested: Tested) -> None:
    """Intervals, sources and positions, below the figures."""
    _say_intervals(whole(tested.scored), units_of(tested.scored)[0])
    _say_sources("source", *by_named_source(tested.scored))
    _say_sources("by file", *by_source(tested.scored))
    _say_positions(by_position(tested.scored))


def _say_intervals(part: Part, over: Unit) -> None:
    bits = part.figures["bits_per_byte"]
    if not bits.known:
        say(PERCENT, "no interval: it takes two documents, or two windows of one")
        return
    shown = {name: _range(x, 1 if name == "perplexity" else 3) for name, x in part.figures.items()}
    say(PERCENT, f"bits per byte {shown['bits_per_byte']}   loss {shown['loss']}")
    say("", f"perplexity {shown['perplexity']}   accuracy {shown['accuracy']}")
    say("", _over(bits, over) + (" of one document" if over == "windows" else ""))
    _say_if_unreliable(bits, over)


def _over(interval: Interval, over: Unit) -> str:
    return f"over {interval.units:,} {over}, worth {interval.effective:,.1f} of equal size"


def _say_if_unreliable(interval: Interval, over: Unit) -> None:
    if not interval.reliable:
        say("note", f"too few {over}, or too unequal: take the interval as a rough idea")
    elif over == "windows":
        say("note", "windows of one document tell of this document, not of other texts")


def _say_sources(label: str, over: Unit, parts: list[Part]) -> None:
    if len(parts) < 2:
        return
    say(label, f"bits/byte  {PERCENT} of its {over:<10}  accuracy    bytes  hardest first")
    for part in parts[:SOURCES_SHOWN]:
        bits = part.figures["bits_per_byte"]
        accuracy = part.figures["accuracy"].value
        between = _range_of_row(bits)
        row = f"{bits.value:9.4f}  {between:<21}  {accuracy:8.3f}  {short(part.n_bytes):>7}"
        say("", f"{row}  {shown_name(part.name)}")
    if len(parts) > SOURCES_SHOWN:
        say("", f"and {len(parts) - SOURCES_SHOWN:,} more: --json has all")


def shown_name(name: str, width: int = 20) -> str:
    """A name of at most `width` characters: without its first folders, or else without its end."""
    shown = name
    while len(shown) > width and "/" in name:
        name = name.partition("/")[2]
        shown = f"…/{name}"
    return shown if len(shown) <= width else f"{shown[: width - 1]}…"


def _say_positions(parts: list[Part]) -> None:
    if len(parts) < 2:
        return
    say("position", f"in window      loss  {PERCENT:<13}  accuracy  targets")
    for part in parts:
        loss = part.figures["loss"]
        between = _range_of_row(loss)
        accuracy = part.figures["accuracy"].value
        row = f"{part.name:<11}  {loss.value:7.4f}  {between:<13}  {accuracy:8.3f}"
        say("", f"{row}  {short(part.tokens):>7}")


def say_difference(one: Tested, other: Tested) -> None:
    """The other checkpoint's figure, and what the first one is better or worse by."""
    over, found = difference(one.scored, other.scored)
    say("against", other.checkpoint)
    say("", f"bits per byte {other.found.bits_per_byte:.4f}{'' if other.keeps_text else LOSSY}")
    say("differ", f"{found.value:+.4f} bits per byte: {_verdict(found)}")
    if found.known:
        say(PERCENT, f"{found.low:+.4f} to {found.high:+.4f}, paired")
        say("", _over(found, over))
        _say_if_unreliable(found, over)
    if one.keeps_text != other.keeps_text:
        say("note", "one tokenizer loses text that the other has to predict")


def _verdict(found: Interval) -> str:
    if not found.known:
        return "one document gives no interval"
    if found.low <= 0 <= found.high:
        return "no difference that this text shows"
    return f"{'better' if found.value < 0 else 'worse'} than the other"


def _range(interval: Interval, digits: int) -> str:
    return f"{interval.low:.{digits}f}-{interval.high:.{digits}f}"


def _range_of_row(interval: Interval) -> str:
    return _range(interval, 3) if interval.effective >= FEWEST_OF_ROW and interval.known else "-"


# JSON --------------------------------------------------------------------------------------------


def as_json(tested: Tested, other: Tested | None = None) -> dict[str, Any]:
    """All of it, with plain values; what is not a number is null."""
    part, over = whole(tested.scored), units_of(tested.scored)[0]
    figures = {  # to the last digit those that were told
        name: replace(part.figures[name], value=value)
        for name, value in tested.found.scalars.items()
    }
    its, sources = by_source(tested.scored)
    found: dict[str, Any] = {
        "checkpoint": tested.checkpoint,
        "max_length": tested.scored.max_length,
        "eval_overlap": tested.eval_overlap,
        "tokenizer_keeps_text": tested.keeps_text,
        "interval": {"coverage": COVERAGE, "over": over, **_about(part.figures["loss"], over)},
        **_plain_part(replace(part, figures=figures)),
        "by_source": {
            "interval_over": its,
            "sources": [{"source": x.name, **_plain_part(x)} for x in sources],
        },
        **_plain_named(tested.scored),
        "by_position": [
            {"positions": x.name, **_plain_part(x, sized=False)} for x in by_position(tested.scored)
        ],
    }
    if other is not None:
        pairs, between = difference(tested.scored, other.scored)
        found["against"] = {
            **as_json(other),
            "difference": {
                "bits_per_byte": _plain(between),
                "interval": {"coverage": COVERAGE, "over": pairs, **_about(between, pairs)},
            },
        }
    return found


def _plain_named(scored: Scored) -> dict[str, Any]:
    """Of a mixture alone."""
    over, parts = by_named_source(scored)
    if not parts:
        return {}
    sources = [{"source": x.name, **_plain_part(x)} for x in parts]
    return {"by_named_source": {"interval_over": over, "sources": sources}}


def _plain_part(part: Part, sized: bool = True) -> dict[str, Any]:
    amounts = {
        "documents": part.documents,
        "windows": part.windows,
        "tokens": part.tokens,
    }
    if sized:  # of a range of positions bytes are not known
        amounts["bytes"] = part.n_bytes
    return amounts | {name: _plain(interval) for name, interval in part.figures.items()}


def _plain(interval: Interval) -> dict[str, float | None]:
    values = {name: getattr(interval, name) for name in ("value", "low", "high")}
    return {name: x if math.isfinite(x) else None for name, x in values.items()}


def _about(interval: Interval, over: Unit) -> dict[str, Any]:
    return {
        "units": interval.units,
        "effective_units": interval.effective,
        "reliable": interval.reliable and over != "windows",
    }
