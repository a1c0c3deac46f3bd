"""What `data show` has found, as lines on screen."""

from collections.abc import Iterable, Sequence
from typing import Any

from lightning_embed.console import LABEL, LEAST, columns, say, short
from lightning_embed.inspecting.batches import SIGNS, ShownBatch, drawn
from lightning_embed.inspecting.copies import Copies
from lightning_embed.inspecting.corpus import Lengths, Vocabulary
from lightning_embed.inspecting.documents import Shown
from lightning_embed.inspecting.drawing import aligned, bars, cut
from lightning_embed.inspecting.facts import Facts
from lightning_embed.inspecting.layouts import Padding
from lightning_embed.watching.mixture_table import say_ingredients

TEXT_LINES = 6  # of a document
TOKEN_LINES = 4
WIDEST_BAR = 40
WINDOWS_NAMED = 4  # of a batch, by their documents


def tell(facts: Facts) -> None:
    """Print all of it."""
    room = max(LEAST, columns() - LABEL)
    _say_corpus(facts)
    say_ingredients(facts.mixture, facts.settings.get("max_passes"))
    _say_vocabulary(facts.vocabulary)
    if facts.lengths is not None:
        _say_lengths(facts.lengths, facts.settings["max_length"], room)
    _say_paddings(facts.paddings, facts.settings["layout"])
    _say_copies(facts.copies, "decontaminate" in facts.settings, room)
    for document in facts.documents:
        _say_document(document, room)
    _say_batch(facts.batch, facts.settings, room)


def percent(share: float) -> str:
    """`12 %`, `1.2 %`, `0.03 %`."""
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _say_corpus(facts: Facts) -> None:
    counts = facts.counts
    say(
        "corpus",
        f"{facts.title}, {counts['documents']:,} documents, {short(counts['bytes'])}B"
        f"  [{facts.key[:8]}]",
    )
    for note in facts.notes:
        say("", note)
    for label, name, size in zip(
        ("tokens", ""), ("train", "held out"), facts.splits.values(), strict=True
    ):
        unknown = f"  {size.unknown:,} unknown" if size.unknown else ""
        say(
            label,
            f"{name}: {short(size.tokens)}  {size.documents:,} documents  {short(size.bytes)}B"
            f"  {size.bytes_per_token:.2f} bytes a token{unknown}",
        )
    if facts.left_out:
        say("", f"{facts.left_out:,} training documents are left out (--data.decontaminate)")


def _say_vocabulary(found: Vocabulary) -> None:
    ordinary = max(1, found.ids)
    part = "" if found.counted == found.tokens else f" in the first {short(found.counted)} tokens"
    say(
        "ids",
        f"{found.ids:,}, of which {found.never_used:,} ({percent(found.never_used / ordinary)})"
        f" are never used in training text{part}{_named(found.some_never_used, found.never_used)}",
    )
    if found.not_trained:
        say(
            "",
            f"{found.not_trained:,} of those stand in held-out text, {found.not_trained_tokens:,}"
            f" times{_named(found.some_not_trained, found.not_trained, counts=True)}",
        )
    if found.most_used:
        say("", f"most used{_named(found.most_used, len(found.most_used), counts=True)}")
    if found.unknown_in:
        files = ", ".join(f"{each['source']} ({each['count']:,})" for each in found.unknown_in)
        say("", f"unknown tokens are in {files}")


def _named(some: list[dict[str, Any]], of: int, counts: bool = False) -> str:
    """`: the  of  and  ...`, for the end of a sentence."""
    if not some:
        return ""
    words = [f"{x['piece']} ({x['count']:,})" if counts else x["piece"] for x in some]
    return f": {'  '.join(words)}{'  ...' if of > len(some) else ''}"


def _say_lengths(found: Lengths, max_length: int, room: int) -> None:
    say(
        "lengths",
        f"of training documents, in tokens: {found.shortest:,} to {found.longest:,}, median"
        f" {found.median:,}, mean {found.mean:,.0f}, nine of ten at most {found.nine_of_ten:,}",
    )
    ranges = [f"{a:,}-{b - 1:,}" for a, b in zip(found.edges, found.edges[1:], strict=False)]
    first, second = max(map(len, ranges)), max(len(f"{n:,}") for n in found.counts)
    space = min(WIDEST_BAR, room - first - second - 4)
    drawn_bars = bars(found.counts, space) if space > 0 else [""] * len(ranges)
    for name, count, drawing in zip(ranges, found.counts, drawn_bars, strict=True):
        say("", f"{name:>{first}}  {count:>{second},}  {drawing}".rstrip())
    if found.longest - 1 > max_length:
        say("", f"what is longer than --data.max_length {max_length:,} becomes several windows")


def _say_paddings(found: Iterable[Padding], own: str) -> None:
    for label, each in zip(("padding", ""), found, strict=True):
        of = "" if each.looked_at == each.batches else f", judged by {each.looked_at} of them"
        part = f" (a draw of {each.windows:,} windows)" if each.is_draw else ""
        say(
            label,
            f"{each.layout}{', as set' if each.layout == own else ''}: {percent(each.padding)} of"
            f" {each.batches:,} batches{part}, {percent(each.repacked)} once repacked{of}",
        )


def _say_copies(found: Copies, decontaminates: bool, room: int) -> None:
    if found.held_out:
        done = "are left out" if decontaminates else "--data.decontaminate true leaves out"
        share = percent(found.train_token_share)
        train = f"{found.train:,} training documents ({share} of the tokens)"
        say(
            "copies",
            f"{found.held_out:,} held-out documents ({percent(found.held_out_share)}) have a"
            f" near-copy in training; {f'{train} {done}' if decontaminates else f'{done} {train}'}",
        )
    else:
        say("copies", "no held-out document has a near-copy in training")
    for pair in found.worst:
        say(
            "",
            f"{percent(pair.share):>5}  {pair.held_out_source} (held out, document {pair.held_out})"
            f"  {pair.train_source} (document {pair.train})",
        )
        say("", "       " + cut(" ".join(pair.text.split()), room - 7))
    if found.exact_in_train:
        say("", f"{found.exact_in_train:,} training documents are equal to an earlier one")
    say(
        "",
        f"near-copy: {percent(found.threshold)} of the runs of {found.ngram} tokens (about"
        f" {found.ngram_bytes} bytes) of the held-out document are in the other;"
        f" {percent(found.seen)} of all held-out runs are anywhere in the training text",
    )
    if found.mostly_seen > found.held_out:
        say(
            "",
            f"{found.mostly_seen:,} held-out documents have {percent(found.threshold)} of their"
            " runs in training, in one document or in several",
        )
    if found.sample < 1:
        say("", f"judged by a sample of {percent(found.sample)} of the runs")
    if found.too_short:
        say(
            "",
            f"{found.too_short:,} held-out documents have fewer than {found.least_ngrams} such"
            " runs: too short to judge, compared as wholes alone",
        )


def _say_document(found: Shown, room: int) -> None:
    say(
        "document",
        f"{found.number:,} of the training text, {found.source}: {found.bytes:,} bytes,"
        f" {found.tokens:,} tokens",
    )
    lines = found.text.split("\n")
    for line in lines[:TEXT_LINES]:
        say("", cut(line, room))
    if len(lines) > TEXT_LINES or len(found.ids) < found.tokens:
        say("", "...")
    rows, done = aligned(
        {"token": found.pieces, "id": list(map(str, found.ids))}, room, TOKEN_LINES
    )
    _say_all(rows)
    if done < found.tokens:
        say("", f"and {found.tokens - done:,} more tokens")


def _say_batch(found: ShownBatch, settings: dict[str, Any], room: int) -> None:
    windows = len(found.sources)
    say(
        "batch",
        f"of step {found.step:,}: {windows:,} windows in {found.rows:,} rows of {found.width:,}"
        f" positions, {percent(found.padding)} padding, {found.targets:,} targets; seed"
        f" {settings['seed']}",
    )
    space = max(1, room - 8)
    for number, row in enumerate(found.windows):
        say("", f"row {number:<4}{drawn(row, found.width, space)}")
    _say_rest(found.rows, len(found.windows))
    if (found.repacked_rows, found.repacked_width) == (found.rows, found.width):
        say("", "no rows of fewer positions would hold these windows: computed as it stands")
    else:
        say(
            "",
            f"repacked, which is what is computed: {found.repacked_rows:,} rows of"
            f" {found.repacked_width:,} positions, {percent(found.repacked_padding)} padding",
        )
        for number, row in enumerate(found.repacked):
            say("", f"row {number:<4}{drawn(row, found.width, space)}")
        _say_rest(found.repacked_rows, len(found.repacked))
    say("", "a sign is a window, the same in both; a dot is padding")
    of = zip(SIGNS[:WINDOWS_NAMED], found.sources, found.documents, strict=False)
    named = [f"{sign} {name} (document {number})" for sign, name, number in of]
    more = f"  and {windows - WINDOWS_NAMED:,} more" if windows > WINDOWS_NAMED else ""
    say("", "  ".join(named) + more)
    say("", f"row {found.near_row}, at its beginning and where windows end:")
    first = found.near
    rows, _ = aligned(
        {
            "position": [str(x.position) for x in first],
            "input": [x.piece for x in first],
            "id": [str(x.id) for x in first],
            "target": [x.target_piece or "none" for x in first],
            "its id": [str(x.target) for x in first],
            "sees from": [str(x.window_begins) for x in first],
        },
        room,
    )
    _say_all(rows)


def _say_rest(rows: int, drawn_rows: int) -> None:
    if rows > drawn_rows:
        say("", f"and {rows - drawn_rows:,} more rows")


def _say_all(lines: Sequence[str]) -> None:
    for line in lines:
        say("", line)
