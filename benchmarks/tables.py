"""Records as tables: RESULTS.md, the README's figures, what a script shows on the terminal.

Everything here makes text of records as `results.py` describes them; a column for each class of
machine, so that those of two stand beside each other.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

BEGIN, END = "<!-- figures, by benchmarks/results.py -->", "<!-- end of the figures -->"
MOST_LINES = 220  # of RESULTS.md
VERSIONS_SHOWN = ("torch", "lightning")

TABLES = {  # in this order
    "step_speed": "The speed of a step and of the whole program",
    "time_to_loss": "Time to nanoGPT's loss on Tiny Shakespeare",
    "variable_length": "Real tokens a second on documents of all lengths",
    "layouts": "What padding costs",
    "lightning_overhead": "What Lightning and our callbacks add to a step",
    "compiling": "What compiling takes and gives",
    "tokenising": "Preparing text beside the bare tokenizer",
    "generation": "Generating text with a cache",
    "loss": "The loss without logits, forward and backward",
    "guard_cost": "Time inside PaddingGuard's hooks",
    "gpu": "One GPU",
    "default_run": "The default run",
    "shakespeare": "Tiny Shakespeare, nanoGPT's CPU setting",
    "quality": "Loss after equal real tokens",
    "growth": "Growth of TokenEmbedding's cost",
    "plan_size": "The plan of an epoch for 10 million documents",
    "proofs": "Proofs at full length, once (tests/soak repeats them, shorter)",
}
IN_README = (  # table, row, and what its ratio is
    (
        "step_speed",
        "a step, AdamW, to nanoGPT compiled",
        "speed of a step with AdamW, to nanoGPT's compiled",
    ),
    (
        "variable_length",
        "cut documents, the default, to random",
        "speed on documents cut at 256 tokens, to Hugging Face's Trainer in random order",
    ),
    (
        "lightning_overhead",
        "Lightning's time per step to a bare loop's",
        "time of a step in Lightning's loop with all callbacks, to a bare loop's",
    ),
)


Record = dict[str, Any]  # a line of results.jsonl


def class_of(line: Record) -> str:
    """The class of the machine, as a column's head."""
    found = line["machine"]
    name = str(found["format"])
    if "threads" in found:
        threads = "1 thread" if found["threads"] == 1 else f"{found['threads']} threads"
        name = f"{name.upper()}, {found['vector_bits']} bits, {threads}"
    if "numbers" in found:
        name = f"{found['numbers']}, {name}"
    if found.get("emulated"):
        name += ", emulated"
    return name


def newest(records: Iterable[Record]) -> list[Record]:
    """One a table, row and class of machine; of a day's, the last."""
    found: dict[tuple[str, str, str], Record] = {}
    for line in sorted(records, key=lambda line: line["date"]):
        found[line["table"], line["what"], class_of(line)] = line
    order = {table: number for number, table in enumerate(TABLES)}
    return sorted(found.values(), key=lambda line: order[line["table"]])


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.5g}"


def ratio_of(line: Record) -> str:
    """Near 1, what matters are thousandths; a small share is told in hundredths."""
    ratio = line["ratio"]
    if ratio < 0.1:
        return f"{100 * ratio:.2g} %"
    return f"{ratio:#.{4 if 0.9 < ratio < 1.1 else 3}g}"


def missed(line: Record) -> bool:
    """Whether the ratio is on the wrong side of its bar."""
    ratio = line["ratio"]
    return bool(ratio < line.get("at_least", ratio) or ratio > line.get("at_most", ratio))


def cell(line: Record) -> str:
    """The ratio with the values it is of, or all values."""
    ours = line["ours"]["values"]
    if "ratio" not in line:
        return ", ".join(f"{number(value)} {unit}" for unit, value in ours.items())
    (unit, mine), (other, theirs) = (
        next(iter(line[name]["values"].items())) for name in ("ours", "beside")
    )
    first = number(mine) if unit == other else f"{number(mine)} {unit}"
    verdict = ", missed" if missed(line) else ""
    return f"{ratio_of(line)}{verdict} ({first} / {number(theirs)} {other})"


def bar(line: Record) -> str:
    for name, sign in (("at_least", "at least"), ("at_most", "at most")):
        if name in line:
            return f"{sign} {line[name]:g}"
    return ""


def table_of(
    rows: dict[str, list[Record]], show: Callable[[Record], str], heads: Sequence[str]
) -> list[str]:
    """A row for each key, whose text begins it, and a column for each class of machine.

    Args:
        rows: of each key, its records, one a class.
        show: the text of a record's cell.
        heads: of the columns before those of the classes.
    """
    classes = list(dict.fromkeys(class_of(line) for lines in rows.values() for line in lines))
    table = [f"| {' | '.join([*heads, *classes])} |"]
    table.append("| --- " * (len(heads) + len(classes)) + "|")
    for begin, lines in rows.items():
        by_class = {class_of(line): show(line) for line in lines}
        table.append(f"| {' | '.join([begin, *(by_class.get(name, '') for name in classes)])} |")
    return table


def section(table: str, records: Sequence[Record]) -> list[str]:
    """A heading, a line of settings for each class of machine, and the rows."""
    rows: dict[str, list[Record]] = {}
    by_class: dict[str, list[Record]] = {}
    for line in records:
        rows.setdefault(f"{line['what']} | {bar(line)}", []).append(line)
        by_class.setdefault(class_of(line), []).append(line)
    notes = [f"- {name}: {note(lines)}" for name, lines in by_class.items()]
    return [f"## {TABLES[table]}", *notes, "", *table_of(rows, cell, ["row", "bar"])]


def note(lines: Sequence[Record]) -> str:
    """Where, when, how and with what these were measured, each said once."""

    def said(texts: Iterable[str]) -> str:
        return "; ".join(filter(None, dict.fromkeys(texts)))

    scripts = ", ".join(dict.fromkeys(f"`{line['script']}`" for line in lines))
    how = " ".join(dict.fromkeys(line["how"] for line in lines))
    text = f"{scripts}, {said(about(line) for line in lines)}. {how}"
    for name in ("ours", "beside"):
        if settings := said(line[name]["settings"] for line in lines if name in line):
            text += f" {name.capitalize()}: {settings}."
    return text


def about(line: Record) -> str:
    versions = ", ".join(f"{name} {line['versions'][name]}" for name in VERSIONS_SHOWN)
    return f"{line['machine']['name']}, {line['date']}, Python {line['python']}, {versions}"


def results_text(records: Sequence[Record]) -> str:
    lines = [
        "# Results",
        "",
        "Made by `python benchmarks/results.py` from `results.jsonl`, which has all values,",
        "settings and versions: of each row the newest on each class of machine. A ratio is ours",
        "to theirs, of one run on one machine; in brackets what it is of. Older figures and the",
        "transcripts of runs are in the history (`git log -p -- benchmarks/RESULTS.md`).",
    ]
    shown = newest(records)
    for table in TABLES:
        if of_table := [line for line in shown if line["table"] == table]:
            lines += ["", *section(table, of_table)]
    if len(lines) > MOST_LINES:
        raise SystemExit(f"RESULTS.md would have {len(lines)} lines, more than {MOST_LINES}")
    return "\n".join(lines) + "\n"


def readme_text(records: Sequence[Record], text: str) -> str:
    """The README with the chosen rows between its two marks."""
    shown = newest(records)
    rows: dict[str, list[Record]] = {}
    for table, what, words in IN_README:
        found = [
            line
            for line in shown
            if (line["table"], line["what"]) == (table, what) and "ratio" in line
        ]
        if not found:
            raise SystemExit(f"no record of {table}: {what}")
        rows[f"{words} | `{found[0]['script']}`"] = found
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"README.md lacks the marks {BEGIN} and {END}")
    table = "\n".join(table_of(rows, ratio_of, ["ratio", "script"]))
    return f"{before}{BEGIN}\n{table}\n{END}{after}"
