"""Epochs of a training text: their windows, plans and lengths, and where a run stands in them.

An epoch is planned anew whenever it is asked for; `plan.py` and `mixture.py` decide what is in it.
"""

from abc import abstractmethod
from functools import cached_property
from typing import Any

import lightning as L
import numpy as np

from lightning_embed.checkpointing.position import Position
from lightning_embed.data.decontaminating import left_out_of, without
from lightning_embed.data.mixture import Mixture
from lightning_embed.data.plan import BatchSettings, Plan, plan_epoch
from lightning_embed.data.windows import Windows, cut_windows
from lightning_embed.tokens.prepared import Prepared


class Epochs(L.LightningDataModule):
    """What `TextDataModule` knows of its epochs.

    Args:
        settings: of a global batch.
        max_length: positions of a window.
        seed: of the order.
        shares: of the sources of a mixture; empty without one.
        max_passes: over a source in an epoch.
        decontaminate: leave out training documents that are near-copies of held-out ones.
    """

    def __init__(
        self,
        settings: BatchSettings,
        max_length: int,
        seed: int,
        shares: dict[str, float],
        max_passes: float,
        decontaminate: bool,
    ) -> None:
        super().__init__()
        self.settings, self.max_length, self.seed = settings, max_length, seed
        self.shares, self.max_passes = shares, max_passes
        self.decontaminate, self._left_out = decontaminate, dict[str, np.ndarray]()
        self._origin = Position()  # where this process began; later positions follow from it

    @property
    @abstractmethod
    def prepared(self) -> Prepared:
        """The tokens."""

    @property
    def left_out(self) -> np.ndarray:
        """Training documents that `--data.decontaminate` leaves out, sorted ascending."""
        if not self.decontaminate:
            return np.zeros(0, np.int64)
        key = self.prepared.key
        if key not in self._left_out:
            self._left_out[key] = left_out_of(self.prepared)
        return self._left_out[key]

    def train_windows(self) -> Windows:
        """Every window of the training documents that are used."""
        windows = cut_windows(self.prepared.train.offsets, self.max_length)
        return without(windows, self.left_out)

    @cached_property
    def mixture(self) -> Mixture | None:
        """Draws each epoch's windows, where `mix` is given."""
        if not self.shares:
            return None
        windows, prepared = self.train_windows(), self.prepared
        named = prepared.report.named_of_source[prepared.train.source]
        return Mixture(windows, named[windows.document], self.shares, self.max_passes, self.seed)

    def _plan(self, epoch: int) -> Plan:
        draw = self.mixture.draw(epoch) if self.mixture else None
        return plan_epoch(
            self.train_windows(), self.settings, seed=self.seed, epoch=epoch, draw=draw
        )

    @cached_property
    def batches_per_epoch(self) -> int:
        """Global batches of the plan, the same number every epoch."""
        return len(self._plan(0))

    @property
    def targets_per_epoch(self) -> int:
        """Real targets; of a mixture those of the first epoch, from which others hardly differ."""
        return self.mixture.targets if self.mixture else self.unique_targets

    @property
    def unique_targets(self) -> int:
        """Real targets of all text that trains, each counted once."""
        if self.mixture:
            return self.mixture.unique
        split = self.prepared.train
        return split.n_targets - int((np.diff(split.offsets)[self.left_out] - 1).sum())

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch: the plan's, or fewer by `--trainer.limit_train_batches`."""
        limit = self.trainer.limit_train_batches if self.trainer is not None else 1.0
        if isinstance(limit, float):
            return max(1, int(self.batches_per_epoch * limit))
        assert self.trainer is not None
        return max(1, min(self.batches_per_epoch, limit // self.trainer.accumulate_grad_batches))

    @property
    def targets_per_step(self) -> float:
        """Real targets of a global batch, on average."""
        return self.targets_per_epoch / self.batches_per_epoch

    def position(self, step: int) -> Position:
        """Where the run stands after `step` optimizer steps."""
        return self._origin.at(step, self.steps_per_epoch)

    @property
    def plan_settings(self) -> dict[str, Any]:
        """What decides which windows make a batch, as flags name it."""
        only_where_given: dict[str, Any] = {}
        if self.shares:
            only_where_given |= {"mix": self.shares, "max_passes": self.max_passes}
        if self.decontaminate:
            only_where_given["decontaminate"] = True
        return {
            "max_length": self.max_length,
            "tokens_per_batch": self.settings.tokens,
            "rows_per_batch": self.settings.rows,
            "layout": self.settings.layout,
            "widths": list(self.settings.widths),
            "seed": self.seed,
            **only_where_given,
        }

    def documents_of_step(self, step: int) -> list[str]:
        """Names of the documents in the global batch that optimizer step `step` trains on."""
        _, epoch, batch = self.position(step - 1)
        split, names = self.prepared.train, self.prepared.report.sources
        documents = np.unique(self.train_windows().document[self._plan(epoch).windows_of(batch)])
        return [f"{names[split.source[d]]} (document {d})" for d in documents]
