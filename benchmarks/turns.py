"""Lets the training loop of a `side_*.py` warm up, wait to be called by `peers.py`, and time steps.

Needs torch alone, so that it also works in a peer's virtual environment. All sides stay loaded and
compiled while they wait, so A B A B costs no more than A A B B, and a short load on the machine or
a warm processor meets both.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

MARK = "@turn "  # begins a line of JSON among whatever else a program prints


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Turns:
    """Call it after each optimizer step with the step's real targets.

    Args:
        warm: steps before the first turn, not timed: compilers, caches and allocators settle.
        steps: steps of a turn.
        about: what the driver should know of this side, such as its number of parameters.
    """

    def __init__(self, warm: int, steps: int, about: dict[str, Any]) -> None:
        self.warm, self.steps, self.about = warm, steps, about
        self.done, self.tokens = 0, 0
        self._began, self._worked = time.perf_counter(), time.process_time()

    def __call__(self, tokens: int) -> None:
        self.done += 1
        self.tokens += tokens
        if self.done < self.warm or (self.done - self.warm) % self.steps:
            return
        spent, worked = now() - self._began, time.process_time() - self._worked
        first = self.done == self.warm
        report = {
            "seconds": spent,
            "processor": worked,
            "tokens": self.tokens,
            "steps": self.steps,
        }
        print(MARK + json.dumps(self.about if first else report), flush=True)
        if not sys.stdin.readline().strip():  # the driver is done, or gone
            sys.stdout.flush()
            os._exit(0)
        self.tokens = 0
        self._began, self._worked = now(), time.process_time()


def settings() -> dict[str, Any]:
    """What the driver asks of this side: a JSON object, the program's only argument."""
    found: dict[str, Any] = json.loads(sys.argv[1])
    return found


def parameter_count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def random_windows(
    path: str, id_type: str, rows: int, length: int, device: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Ids and targets `(rows, length)` of windows drawn from a file of ids, the same for every
    side."""
    tokens = np.memmap(path, dtype=id_type, mode="r")
    draw = np.random.default_rng(0)
    while True:
        starts = draw.integers(0, len(tokens) - length - 1, rows)
        pieces = tokens[starts[:, None] + np.arange(length + 1)].astype(np.int64)
        both = torch.from_numpy(pieces)
        if device == "cuda":
            both = both.pin_memory().to(device, non_blocking=True)
        yield both[:, :-1].contiguous(), both[:, 1:].contiguous()
