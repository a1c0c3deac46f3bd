"""Pictures of TensorBoard for the README: its arranged page and its projector, of real runs.

    python docs/pictures/draw.py runs

Takes a folder of runs and writes tensorboard.png and projector.png beside itself; needs Chromium.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # where the pages are looked at

from browser import browsing, tensorboard  # noqa: E402

from lightning_embed.atomic import replacing  # noqa: E402

SIZE = {"width": 1720, "height": 760}
SETTLES = 4.0  # seconds after which what moves on a page has come to rest
PAGES = {  # by file, a page and what it shows when it is complete
    "tensorboard.png": ("custom_scalars", ("Overview", "learning rate")),
    "projector.png": ("projector", ("Component #1", "Points:")),
}


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("runs", type=Path, help="folder of runs")
    runs = made.parse_args().runs
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
