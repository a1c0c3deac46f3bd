"""The page that compares runs: in itself, and as a browser shows it."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from made_runs import NOW, make_run, write_events

from lightning_embed.comparing.page import COLOURS, page
from lightning_embed.comparing.record import Record, read_runs

WIDTHS = (400, 1400)


@pytest.fixture
def runs(tmp_path: Path) -> list[Record]:
    """Five, of which one is older and has logged no tokens, and one was stopped and resumed."""
    root = tmp_path / "runs"
    make_run(root / "a <b>", 3.4, 20, NOW, model__d_model=32)
    make_run(root / "größe 試験", 2.9, 40, NOW + 1, model__lr=0.01)
    make_run(root / "resumed", 3.1, 30, NOW + 2, ended=False, data__files="a & b.txt")
    more = {"loss/train": {step: 3.1 for step in range(26, 60)}}
    write_events(root / "resumed", more, NOW + 99, "host.2", 0, first_step=26)
    make_run(root / "x", 3.3, 10, NOW + 3, trainer__max_steps=40)
    old = make_run(root / "z old", 3.2, 25, NOW + 4)
    next(old.glob("events*")).unlink()
    falling = {step: 3 + 1 / step for step in range(1, 26)}
    write_events(old, {"train/loss": falling, "val/loss": {20: 3.2}, "val/bits_per_byte": {20: 1}})
    return read_runs([root])[0]


def test_it_is_one_file_that_asks_the_network_for_nothing(runs: list[Record]) -> None:
    text = page(runs)
    assert not re.search(r"https?:|//|url\(|@import|<script|<link|<img|src=", text)
    assert text.count("<svg") - text.count('class="key"') == 6


def test_settings_that_differ_are_shown_with_every_runs_value(runs: list[Record]) -> None:
    (table,) = re.findall(r'<table id="settings">.*?</table>', page(runs), re.S)
    rows = re.findall(r"<tr>(<td.*?)</tr>", table, re.S)
    shown = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]
    assert {re.sub("<wbr>", "", cells[0]): cells[1:] for cells in shown} == {
        "model.d_model": ["32", "64", "64", "64", "64"],
        "model.lr": ["0.003", "0.01", "0.003", "0.003", "0.003"],
        "data.files": ["null", "null", "a &amp; b.txt", "null", "null"],
        "trainer.max_steps": ["20", "20", "20", "40", "20"],
    }
    assert "None." in page(runs[:1])


def test_runs_without_a_figure_are_named(runs: list[Record]) -> None:
    assert page(runs).count("<p>Over real tokens: not z old, for want of figures.</p>") == 2
    text = page(runs[-1:])
    assert "Over real tokens: no run" in text
    assert text.count("<figure>") == 4


def test_a_damaged_run_says_so(runs: list[Record]) -> None:
    (runs[0].folder / "config.yaml").write_text("a: [", encoding="utf-8")
    found, _ = read_runs([runs[0].folder, runs[1].folder])
    assert "damaged: config.yaml does not parse" in page(found)


def test_more_runs_than_colours_are_told_apart_by_dashes(runs: list[Record]) -> None:
    text = page(runs * 3)
    first, again = (re.findall(rf"path\.run{n} {{ (.*?) }}", text)[0] for n in (0, len(COLOURS)))
    assert first.partition(";")[0] == again.partition(";")[0] and first != again


# In a browser -------------------------------------------------------------------------------------

# Puts the page into frames of the widths asked for, which are to it what windows are, and writes
# down what is to be seen there. Chromium's own windows are no narrower than 500 pixels.
LOOK = """<!doctype html><body><script>
const found = {};
const frames = %(widths)s.map(width => {
  const frame = document.createElement("iframe");
  frame.style.width = width + "px"; frame.style.height = "900px"; frame.srcdoc = %(page)s;
  document.body.append(frame);
  return new Promise(done => frame.onload = () => done([width, frame.contentWindow]));
});
Promise.all(frames).then(all => {
  for (const [width, window] of all) {
    const $ = selector => [...window.document.querySelectorAll(selector)];
    const box = element => element.getBoundingClientRect();
    const style = element => window.getComputedStyle(element);
    found[width] = {
      overflow: window.document.documentElement.scrollWidth - window.innerWidth,
      background: style(window.document.body).backgroundColor,
      colour: style(window.document.body).color,
      names: $("#figures td:first-child").map(x => x.innerText),
      headings: $("h2").map(x => x.innerText),
      charts: $("figure svg").map(x => ({left: box(x).left, width: box(x).width})),
      labels: $("figure .axis").map(x => x.textContent),
      text: $("figure .axis").map(x => box(x).height),
      strokes: $("figure:first-child .bold").map(x => style(x).stroke),
      lengths: $("figure .curve").map(x => x.getTotalLength()),
      requests: window.performance.getEntriesByType("resource").length,
    };
  }
  document.body.textContent = JSON.stringify(found);
});
</script></body>"""


def browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if (path := shutil.which(name)) is not None:
            return path
    pytest.skip("there is no chromium on this machine")


def look(text: str, folder: Path, dark: bool) -> dict[int, dict[str, Any]]:
    """What a browser shows of a page, by width."""
    escaped = json.dumps(text).replace("</", r"<\/")
    file = folder / "look.html"
    file.write_text(LOOK % {"widths": list(WIDTHS), "page": escaped}, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    told = subprocess.run(
        [browser(), *flags, scheme, "--virtual-time-budget=5000", "--dump-dom", file.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    (body,) = re.findall(r"<body>(\{.*\})</body>", told.stdout, re.S)
    return {int(width): seen for width, seen in json.loads(html.unescape(body)).items()}


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_what_a_browser_shows_narrow_and_wide(
    runs: list[Record], tmp_path: Path, dark: bool
) -> None:
    seen = look(page(runs), tmp_path, dark)
    for width, shown in seen.items():
        assert shown["overflow"] <= 0, f"at {width} pixels the page is wider than its window"
        assert shown["names"] == ["a <b>", "größe 試験", "resumed", "x", "z old"]
        assert shown["headings"] == ["Settings that differ", "Loss", "Bits per byte"]
        assert shown["labels"] == ["steps", "real tokens", "minutes of training"] * 2
        assert min(shown["text"]) >= 9  # pixels
        assert len(shown["lengths"]) == 10 + 8 + 10 + 5 + 4 + 5
        assert max(shown["lengths"]) > 100 and shown["requests"] == 0
        assert len(set(shown["strokes"])) == 5
        lightness = [sum(map(int, re.findall(r"\d+", shown[x]))) for x in ("background", "colour")]
        assert (lightness[0] < lightness[1]) == dark and abs(lightness[0] - lightness[1]) > 450
    assert len({chart["left"] for chart in seen[400]["charts"]}) == 1  # below each other
    assert len({chart["left"] for chart in seen[1400]["charts"]}) == 3  # and beside
    assert all(chart["width"] > 330 for shown in seen.values() for chart in shown["charts"])
