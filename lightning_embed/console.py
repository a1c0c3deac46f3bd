"""Lines for the screen: one aligned line a fact, printed by one process only."""

import os
import sys
import time

BEGAN = time.perf_counter()  # when the program started: the first module of ours it imports


def is_main_process() -> bool:
    """Whether this is the process that talks, also before torch.distributed is up."""
    return all(int(os.environ.get(name, 0)) == 0 for name in ("RANK", "LOCAL_RANK", "NODE_RANK"))


def say(label: str, text: str) -> None:
    """Print `label    text` at once, on the main process."""
    if is_main_process():
        sys.stdout.write(f"{label:<9}{text}\n")
        sys.stdout.flush()


def duration(seconds: float) -> str:
    """`3:07`, or `1:02:05` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def short(number: float) -> str:
    """`950`, `8.7 k`, `2.0 M`."""
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number:.0f}"
