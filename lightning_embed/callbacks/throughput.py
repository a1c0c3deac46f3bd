"""`Throughput`: real tokens per second, padding share, waiting for data.

Knows: what to count at each step (plain Python numbers, no device is asked). Leaves to others:
showing the figures (`progress.py`).
"""

import time
from typing import Any

import lightning as L

from lightning_embed.batching import Batch


class Throughput(L.Callback):
    """Counts real targets and positions of global batches over an interval of log steps.

    Figures of the last interval, in `latest`: `tokens_per_s` real tokens a second over all
    processes; `padding` share of positions that hold none; `data_wait` share of time spent waiting
    for a batch. Time in validation, checkpoints and compilation's first steps counts for nothing.
    """

    def __init__(self) -> None:
        self.latest: dict[str, float] = {}
        self.total_tokens = 0
        self.total_positions = 0
        self._reset()

    def _reset(self) -> None:
        self._tokens = self._positions = 0.0
        self._busy = self._waited = 0.0
        self._began: float | None = None
        self._ended: float | None = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self._began = time.perf_counter()
        if self._ended is not None:
            self._waited += self._began - self._ended

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        share = 1 / trainer.accumulate_grad_batches
        self._tokens += batch.global_targets * share
        self._positions += batch.global_positions * share
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.total_tokens += batch.global_targets
            self.total_positions += batch.global_positions
        self._ended = time.perf_counter()
        if self._began is not None:
            self._busy += self._ended - self._began

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._ended = None  # what comes now is not waiting for data

    def skip(self) -> None:
        """Forget the interval so far, as after a step that also compiled."""
        self._reset()

    def close_interval(self) -> dict[str, float]:
        """Figures since the last call; on a GPU call it where the device was just waited for."""
        elapsed = self._busy + self._waited
        if elapsed > 0 and self._positions > 0:
            self.latest = {
                "tokens_per_s": self._tokens / elapsed,
                "padding": 1 - self._tokens / self._positions,
                "data_wait": self._waited / elapsed,
            }
        self._reset()
        return self.latest
