"""Pictures for the README of a real run: the terminal, TensorBoard's arranged page, its projector.

    script -q -c "stty cols 96; python train.py fit --config stdlib" recording
    python docs/pictures/draw.py runs recording

Takes a folder of runs and what a terminal was sent, and writes terminal.svg, tensorboard.png and
projector.png beside itself; needs Chromium.
"""

import argparse
import io
import re
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # where the pages are looked at

from browser import browsing, tensorboard  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.text import Text  # noqa: E402

from lightning_embed.atomic import replacing  # noqa: E402

COLUMNS = 100
SIZE = {"width": 1720, "height": 760}
SETTLES = 4.0  # seconds after which what moves on a page has come to rest
PAGES = {  # by file, a page and what it shows when it is complete
    "tensorboard.png": ("custom_scalars", ("Overview", "learning rate")),
    "projector.png": ("projector", ("Component #1", "Points:")),
}


def terminal(recording: str) -> str:
    """What the terminal showed after the second validation, as SVG."""
    lines = recording.split("\n")[1:]  # without the recorder's own
    validations = [n for n, line in enumerate(lines) if "validation at step" in line]
    frames = re.split(r"\r|\x1b\[2K|\n", "\n".join(lines[validations[1] + 1 :]))
    bar = next(frame for frame in frames if "ETA" in frame)  # each draws it anew
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    for line in (*lines[: validations[1] + 1], bar):
        shown = re.split(r"\r(?!$)|\x1b\[2K", line.rstrip("\r"))[-1]
        if shown.strip() and ("━" not in shown or line == bar):
            console.print(Text.from_ansi(shown), crop=True, no_wrap=True)
    svg = console.export_svg(title="python train.py fit --config stdlib")
    return re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # nothing from other hosts


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("runs", type=Path, help="folder of runs")
    made.add_argument("recording", type=Path, help="what a terminal was sent, by script")
    given = made.parse_args()
    runs = given.runs
    with replacing(ROOT / "docs" / "pictures" / "terminal.svg") as path:
        path.write_text(terminal(given.recording.read_text("utf-8", "replace")), "utf-8")
    with (
        tempfile.TemporaryDirectory() as work,
        tensorboard(runs, Path(work)) as address,
        browsing(Path(work) / "browser") as page,
    ):
        for file, (name, words) in PAGES.items():
            page.open(f"{address}#{name}", **SIZE)
            page.wait_for(*words, seconds=120)
            time.sleep(SETTLES)
            with replacing(ROOT / "docs" / "pictures" / file) as path:
                path.write_bytes(page.picture())
            print(f"docs/pictures/{file}")


if __name__ == "__main__":
    main()
