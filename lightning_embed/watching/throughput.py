"""`Throughput`: real tokens per second, padding, FLOP/s, waiting for data, peak memory.

Each step adds plain Python numbers, so no device is waited for; `progress.py` and `summary.py` show
the figures.
"""

import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Any

import lightning as L

from lightning_embed import figures
from lightning_embed.data.batch import Batch
from lightning_embed.training.lightning_module import LanguageModel
from lightning_embed.watching.meters import matrix_rate, peak_memory, training_dtype


@dataclass
class Tally:
    """What was done in how long, over all processes."""

    tokens: float = 0.0  # real targets
    positions: float = 0.0  # of the rows handed over, padding included
    pairs: float = 0.0  # of queries and keys
    seconds: float = 0.0
    waited: float = 0.0  # of them, for data

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


class Throughput(L.Callback):
    """Counts real targets and positions of global batches over an interval of log steps.

    `close_interval` gives the figures of an interval, `whole_run` those of all of them:
    `tokens_per_s` real tokens a second over all processes; `padding` share of positions that hold
    none; `data_wait` share of time this process had no batch to work on; `flops_per_s` what the
    network's mathematics needs for those tokens (padding, optimizer and recomputation count for
    nothing), and `mfu` its share of the rate of a plain product measured when training began;
    `peak_memory` in bytes, of this process.

    Time in validation and in compilation's first steps counts for nothing; logging and saving in
    between do count.
    """

    def __init__(self) -> None:
        self.total = Tally()
        self.tokens = 0.0  # real targets since the run began
        self._before = 0.0  # seconds, by earlier processes
        self._training_began = time.perf_counter()
        self.matrix_rate = 0.0
        self._flops: Callable[[float, float], float] | None = None
        self._peak: Callable[[], int | None] = lambda: None
        self._loader_waited = 0.0
        self._reset()

    def _reset(self) -> None:
        self._now = Tally()
        self._began: float | None = None
        self._ended: float | None = None

    def state_dict(self) -> dict[str, float]:
        return {"tokens": self.tokens, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.tokens, self._before = state_dict["tokens"], state_dict["seconds"]

    @property
    def seconds(self) -> float:
        """Of training so far, by every process that had a part in the run."""
        return self._before + time.perf_counter() - self._training_began

    def on_train_start(self, trainer: L.Trainer, pl_module: LanguageModel) -> None:  # type: ignore[override]
        self._training_began = time.perf_counter()
        data = getattr(trainer, "datamodule", None)
        if data is not None and not self.tokens:  # a checkpoint of a version that did not count
            self.tokens = trainer.global_step * data.targets_per_step
        device = pl_module.device
        dtype = training_dtype(str(trainer.precision), device)
        self.matrix_rate = matrix_rate(device, dtype) * trainer.world_size
        self._flops = pl_module.network.training_flops
        self._peak = lambda: peak_memory(device)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self._began = time.perf_counter()
        waited = getattr(trainer.train_dataloader, "waited", 0.0)
        if self._ended is not None:
            self._now.seconds += self._began - self._ended
            self._now.waited += waited - self._loader_waited
        self._loader_waited = waited

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        each = 1 / trainer.accumulate_grad_batches  # each micro-batch has the global counts
        self.tokens += batch.global_targets * each
        self._now.tokens += batch.global_targets * each
        self._now.positions += batch.global_positions * each
        self._now.pairs += batch.global_pairs * each
        self._ended = time.perf_counter()
        if self._began is not None:
            self._now.seconds += self._ended - self._began

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._ended = None  # what comes now is not training

    def skip(self) -> None:
        """Forget the interval so far, as after a step that also compiled."""
        self._reset()

    def close_interval(self) -> dict[str, float]:
        """Figures since the last call; on a GPU call it where the device was just waited for."""
        done, found = self._now, self.so_far()
        self._reset()
        if found:
            self.total += done
        return found

    def tagged(self, found: dict[str, float]) -> dict[str, float]:
        """An interval's figures as loggers name them, with those of the whole run."""
        units = {
            "tokens_per_s": (figures.TOKENS_PER_SECOND, 1.0),
            "data_wait": (figures.DATA_WAIT, 1.0),
            "padding": (figures.PADDING, 1.0),
            "flops_per_s": (figures.FLOPS_PER_SECOND, 1.0),
            "mfu": (figures.MFU, 1.0),
            "peak_memory": (figures.MEMORY, 2.0**30),
        }
        its = {units[name][0]: value / units[name][1] for name, value in found.items()}
        return {**its, figures.TOKENS: round(self.tokens), figures.MINUTES: self.seconds / 60}

    def so_far(self) -> dict[str, float]:
        """Figures of the interval that goes on."""
        return self._figures(self._now) if self._now.seconds > 0 and self._now.positions else {}

    def whole_run(self) -> dict[str, float]:
        """Figures over all closed intervals; empty before the first."""
        return self._figures(self.total) if self.total.seconds > 0 else {}

    def _figures(self, done: Tally) -> dict[str, float]:
        found = {
            "tokens_per_s": done.tokens / done.seconds,
            "padding": 1 - done.tokens / done.positions,
            "data_wait": done.waited / done.seconds,
        }
        if self._flops is not None:
            found["flops_per_s"] = self._flops(done.tokens, done.pairs) / done.seconds
            found["mfu"] = found["flops_per_s"] / self.matrix_rate
        peak = self._peak()
        return found if peak is None else found | {"peak_memory": float(peak)}
