"""One page that compares runs: figures, the settings that differ, and curves over each other.

The page is a single file that asks the network for nothing and runs no script. It is light or dark
as the reader's browser is, and its charts stand beside or below each other by its width.
"""

from collections.abc import Callable
from html import escape

from lightning_embed.comparing.charts import Curve, chart
from lightning_embed.comparing.history import Point
from lightning_embed.comparing.record import Record
from lightning_embed.comparing.settings import differing, setting, written
from lightning_embed.comparing.table import COLUMNS, LOSSY_FOOTNOTE, WORDS, cell
from lightning_embed.console import printable

# Told apart by people who see red and green alike; each for a light and for a dark page.
COLOURS = (
    *(("#0072b2", "#56b4e9"), ("#d55e00", "#ff9d5c"), ("#00805f", "#2fd3a6")),
    *(("#b0438a", "#e99ccb"), ("#8a6d00", "#f0d54a"), ("#555555", "#c0c0c0")),
)
DASHES = ("none", "7 4", "2 3")  # of the runs that have the first colours once more

MEASURES = {  # by heading: the series in thin lines and that in bold ones
    "Loss": ("train", "validation"),
    "Bits per byte": (None, "bits_per_byte"),
}

SAME = ' class="same"'  # as the first run's setting

STYLE = """
:root { color-scheme: light dark; --page: #fff; --text: #1b1f24; --soft: #59636e; --line: #d9dee3; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171a; --text: #e6e9ec; --soft: #9aa4ae; --line: #363c43; }
}
body { margin: 0 auto; padding: 12px; max-width: 1500px; background: var(--page);
  color: var(--text); font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.4em; margin: .3em 0; } h2 { font-size: 1.1em; margin: 1.4em 0 .4em; }
p { color: var(--soft); margin: .3em 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25em .7em; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; }
.word { text-align: left; }
th:first-child, td:first-child { position: sticky; left: 0; padding-left: 0;
  background: var(--page); }
#settings td { max-width: 26ch; overflow: hidden; text-overflow: ellipsis; }
@media (max-width: 700px) {
  body { font-size: 13px; } th, td { padding: .25em .45em; }
  #settings td { max-width: 14ch; }
  #settings td:first-child { min-width: 14ch; white-space: normal; }
}
td.same { color: var(--soft); }
.key { width: 20px; height: 10px; margin-right: .4em; }
.charts { display: grid; gap: 8px 20px;
  grid-template-columns: repeat(auto-fill, minmax(min(400px, 100%), 1fr)); }
figure { margin: 0; min-width: 0; } figure svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 12px; }
.axis, .x { text-anchor: middle; } .y { text-anchor: end; }
.grid { stroke: var(--line); fill: none; }
.curve { fill: none; stroke-linejoin: round; }
.bold { stroke-width: 2.2; } .thin { stroke-width: 1.2; opacity: .55; }
"""


def page(runs: list[Record]) -> str:
    """The page as text; the settings of the first run are what the others are compared with."""
    title = "Runs: " + ", ".join(run.label for run in runs)
    sections = [_figures(runs), _settings(runs)]
    sections += [_curves(runs, name, *series) for name, series in MEASURES.items()]
    body = "\n".join(sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{_colours(len(runs))}</style></head>\n"
        f"<body><h1>Runs compared</h1>\n{body}\n</body></html>\n"
    )


def _colours(count: int) -> str:
    """A class for each run: the line's and the dots' colour, and the line's dashes."""
    rules = []
    for dark in (False, True):
        each = []
        for run in range(count):
            colour = COLOURS[run % len(COLOURS)][dark]
            dash = DASHES[run // len(COLOURS) % len(DASHES)]
            each.append(f"path.run{run} {{ stroke: {colour}; stroke-dasharray: {dash}; }}")
            each.append(f"circle.run{run} {{ fill: {colour}; }}")
        rules.append("\n".join(each))
    return f"{rules[0]}\n@media (prefers-color-scheme: dark) {{\n{rules[1]}\n}}"


def _key(run: int) -> str:
    """A piece of the run's line, to stand before its name."""
    line = f'<path class="curve bold run{run}" d="M0 5H20"/>'
    return f'<svg class="key" viewBox="0 0 20 10" aria-hidden="true">{line}</svg>'


def _figures(runs: list[Record]) -> str:
    """The table's columns, those first that a narrow page should show."""
    names = sorted(COLUMNS, key=lambda name: COLUMNS[name].rank)
    kinds = {name: ' class="word"' if name in WORDS else "" for name in names}
    heads = [f"<th{kinds[name]}>{escape(COLUMNS[name].heading)}</th>" for name in names]
    rows = []
    for number, run in enumerate(runs):
        texts = {name: escape(cell(run, name)) for name in names}
        texts["name"] = _key(number) + texts["name"]
        if run.lossy:
            star = f'<span title="{escape(LOSSY_FOOTNOTE)}">{texts["bits_per_byte"]}</span>'
            texts["bits_per_byte"] = star
        if run.problem is not None:
            texts["state"] += f": {escape(printable(run.problem))}"
        rows.append("".join(f"<td{kinds[name]}>{texts[name]}</td>" for name in names))
    return _table("figures", "".join(heads), rows)


def _settings(runs: list[Record]) -> str:
    names = differing([run.settings for run in runs])
    if not names:
        return "<h2>Settings that differ</h2>\n<p>None.</p>"
    labels = [f"<th>{_key(number)}{escape(run.label)}</th>" for number, run in enumerate(runs)]
    rows = []
    for name in names:
        values = [printable(written(setting(run.settings, name))) for run in runs]
        texts = [
            f'<td{SAME if number and value == values[0] else ""} title="{escape(value)}">'
            f"{escape(value)}</td>"
            for number, value in enumerate(values)
        ]
        label = escape(name).replace(".", ".<wbr>").replace("_", "_<wbr>")
        rows.append(f'<td class="word">{label}</td>{"".join(texts)}')
    head = f'<th class="word">setting</th>{"".join(labels)}'
    return f"<h2>Settings that differ</h2>\n{_table('settings', head, rows)}"


def _table(name: str, head: str, rows: list[str]) -> str:
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="wide"><table id="{name}"><tr>{head}</tr>\n{body}</table></div>'


def _curves(runs: list[Record], name: str, thin: str | None, bold: str) -> str:
    """A measure over steps, tokens and minutes; runs that have not logged one are named."""
    figures, notes = [], []
    for label, x_of in _axes().items():
        curves, without = [], []
        for number, run in enumerate(runs):
            found = [
                Curve(number, f"{run.label}, {series}".replace("_", " "), points, series == bold)
                for series in (thin, bold)
                if series and (points := _points(run, series, x_of))
            ]
            curves += found
            if not found:
                without.append(run.label)
        if curves:
            figures.append(f"<figure>{chart(curves, name, label)}</figure>")
        if without:
            which = "no run" if len(without) == len(runs) else "not " + ", ".join(without)
            notes.append(f"<p>Over {label}: {escape(which)}, for want of figures.</p>")
    kinds = "Thin: training. Bold: validation. " if thin else "At validations. "
    kinds += "The first twentieth of a curve may lie above the chart."
    told, charts = "\n".join([f"<p>{kinds}</p>", *notes]), "\n".join(figures)
    return f'<h2>{name}</h2>\n{told}\n<div class="charts">{charts}</div>'


def _axes() -> dict[str, Callable[[Record, Point], float | None]]:
    return {
        "steps": lambda run, point: point.step,
        "real tokens": lambda run, point: run.history.tokens_at(point.step),
        "minutes of training": lambda run, point: point.seconds / 60,
    }


def _points(
    run: Record, series: str, x_of: Callable[[Record, Point], float | None]
) -> list[tuple[float, float]]:
    found = [(x_of(run, point), point.value) for point in run.history.series.get(series, [])]
    return [(x, y) for x, y in found if x is not None]
