"""`Crowding`: warns when other programs take the cores that training's threads need.

The threads of a matrix product wait for the slowest of them without sleeping. Beside a single other
busy program two threads on two cores can take ten times as long as one, and nothing else on screen
would tell why.
"""

import time
from typing import Any

import lightning as L
import torch

from lightning_embed.console import say
from lightning_embed.watching.meters import Neighbours

SECONDS = 5.0  # of a reading; with IN_A_ROW it ignores bursts shorter than 10 s
IN_A_ROW = 2  # readings that must agree
SLACK = 0.25  # cores that an idle system uses now and then


class Crowding(L.Callback):
    """Warns once in a run on CPU, with the number of threads that fits beside the others."""

    def __init__(self) -> None:
        self._neighbours: Neighbours | None = None
        self._began = 0.0
        self._crowded = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._neighbours = Neighbours() if pl_module.device.type == "cpu" else None
        self._began = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        if self._neighbours is None or time.perf_counter() - self._began < SECONDS:
            return
        self._began = time.perf_counter()
        taken, cores = self._neighbours(), self._neighbours.cores
        threads = torch.get_num_threads()
        fitting = max(1, int(cores - taken + SLACK))
        self._crowded = self._crowded + 1 if fitting < threads else 0
        if self._crowded == IN_A_ROW:
            self._neighbours = None
            say(
                "warning",
                f"other processes keep {taken:.1f} of {cores} cores busy, and training's {threads}"
                f" threads wait for each other: OMP_NUM_THREADS={fitting} is faster beside them",
            )
