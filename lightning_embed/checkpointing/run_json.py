"""What a run's `run.json` says: its name, when it was started, by which process, and how it ended.

Read without torch. `run_folders.py` writes it:

    {"name": "stdlib", "starts": [1795669095.5], "process": "HOST-4026531836-812-90412",
     "parameters": 3145728, "finished": 1795669312.7}

Times are in seconds since 1970. There is one start for the beginning and one for each resume;
`finished` is missing until the last evaluation is done, and again once the run is resumed. `lossy`
is there, and true, where the tokens do not give the held-out text back.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

CLAIM = "run.json"
ROOT = Path("runs")  # of all runs, unless --trainer.default_root_dir says otherwise


def about(folder: Path) -> dict[str, Any]:
    """What stands there; nothing where it is absent, damaged or of another tool."""
    with suppress(OSError, ValueError):
        found = json.loads((folder / CLAIM).read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return {}


def run_name(folder: Path) -> str:
    """The name a run was started under, whatever its folder is called."""
    found = about(folder)
    if "name" in found:
        return str(found["name"])
    stem, _, number = folder.name.rpartition("-")  # of a version that wrote no run.json
    return stem if stem and number.isdecimal() else folder.name


def starts(found: dict[str, Any]) -> list[float]:
    """When a run was started, and then resumed, as far as that is written there."""
    times = found.get("starts")
    if not isinstance(times, list):
        return []
    return [float(time) for time in times if isinstance(time, int | float)]
