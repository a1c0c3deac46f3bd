"""Training steps outside a run, timed: network, batches, arithmetic, compiler and optimizer are
those of the run, and leave no trace in it.

What torch compiles here serves the run, which then compiles nothing: batches come in the run's
order, the first one eager, so that the compiler sees the same shapes first.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.plugins.precision import (
    DoublePrecision,
    HalfPrecision,
    MixedPrecision,
    Precision,
)
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from lightning_embed.data.batch import Batch
from lightning_embed.training.lightning_module import LanguageModel


@contextmanager
def without_trace(deterministic: Any, threads: int) -> Iterator[None]:
    """Meanwhile torch computes as the run's processes will; afterwards all is as it was.

    Args:
        deterministic: as `--trainer.deterministic` has it.
        threads: of each process.
    """
    before = torch.get_num_threads()
    enabled = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        with isolate_rng():
            if threads != before:
                torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(
                bool(deterministic), warn_only=deterministic == "warn"
            )
            yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warns)
        if threads != before:
            torch.set_num_threads(before)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def precision_plugin(precision: str, device: torch.device) -> Precision:
    """Lightning's plugin for a precision by its name."""
    name: Any = precision
    if precision.endswith("-mixed"):
        return MixedPrecision(name, device.type)
    if precision in ("16-true", "bf16-true"):
        return HalfPrecision(name)
    return DoublePrecision() if precision.startswith("64") else Precision()


class Rehearsal:
    """A network with its optimizer on a device.

    Args:
        settings: of `LanguageModel`, the vocabulary too.
        precision: as `--trainer.precision` names it.
        device: to compute on.
        targets: real ones of a global batch.
    """

    def __init__(
        self, settings: dict[str, Any], precision: str, device: torch.device, targets: float
    ) -> None:
        self.device, self._precision = device, precision_plugin(precision, device)
        module = LanguageModel(**settings | {"schedule_steps": 1000})
        self._precision.convert_module(module.to(device))
        self.module, self.network = module, module.network
        if module.hparams["muon_turns"] is None:
            module.hparams["muon_turns"] = module.turns(targets, settings["max_length"])
        made: Any = module.configure_optimizers()
        self.optimizer = made["optimizer"]

    def train(self, batch: Batch) -> None:
        """Forward, backward, norm, step."""
        with self._precision.train_step_context():
            loss = self.network.loss(batch.ids, batch.targets, batch.segments, batch.repack)
            loss = loss / max(1, batch.global_targets)
        loss.backward()
        parameters = [p for p in self.network.parameters() if p.grad is not None]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def score(self, batch: Batch) -> None:
        with self._precision.val_step_context():
            self.network.score(batch.ids, batch.targets, batch.segments, batch.repack)

    def seconds(
        self,
        do: Callable[[Batch], None],
        batches: Iterable[Batch],
        at_least: float,
        fewest: int = 3,
    ) -> float:
        """Mean seconds of a batch, collating it included, over as many as take `at_least` seconds
        and `fewest` of them, but not longer than twice that; 0 where there is no batch. Batches
        that took more than twice the median met another program's burst, and do not count."""
        began = last = time.perf_counter()
        each = []
        for batch in batches:
            do(move_data_to_device(batch, self.device))
            self._wait()
            before, last = last, time.perf_counter()
            each.append(last - before)
            spent = last - began
            if spent >= at_least and (len(each) >= fewest or spent >= 2 * at_least):
                break
        if not each:
            return 0.0
        limit = 2 * statistics.median(each)
        return statistics.fmean(seconds for seconds in each if seconds <= limit)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def warm_up(self, batches: Iterator[Batch], compiled: bool) -> None:
        """The first step is eager, as a run's, then the compiler's."""
        for batch in islice(batches, 1):
            self.train(move_data_to_device(batch, self.device))
        if compiled:
            self.network.compile_parts()
        for batch in islice(batches, 2):
            self.train(move_data_to_device(batch, self.device))


def full_rows(rows: int, width: int, vocabulary: int) -> Batch:
    """A batch of rows without padding, of any ids."""
    ids = torch.arange(rows * width).view(rows, width) % max(1, vocabulary - 4) + 4
    count = torch.full((rows,), width)
    return Batch(ids, ids, count, count, rows * width, rows * width)
