"""The loader that walks a plan: one process' batches in order, from any of them on.

Which windows form a batch is decided in `plan.py`, how it is filled in `batch.py`; `datamodule.py`
makes the loaders.
"""

import time
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from lightning_embed.data.batch import Batch, PaddedRows
from lightning_embed.data.mixture import Mixture
from lightning_embed.data.plan import BatchSettings, MicroBatch, plan_epoch
from lightning_embed.errors import UserError


class PlanLoader:
    """Iterates one process' micro-batches of a plan, from any position on.

    Not a `DataLoader`, so that Lightning leaves its order alone; each pass over it makes one.

    Args:
        rows: what collates.
        settings, seed, shuffle: of the plan.
        rank, world_size: this process' share.
        accumulate: micro-batches a process has in each global batch.
        num_workers: data worker processes; 0 collates in this one.
        pin_memory: for copies to a GPU that do not wait.
        mixture: draws an epoch's windows; without one each comes once.
    """

    def __init__(
        self,
        rows: PaddedRows,
        settings: BatchSettings,
        *,
        seed: int,
        shuffle: bool,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
        num_workers: int = 0,
        pin_memory: bool = False,
        mixture: Mixture | None = None,
    ) -> None:
        self.rows, self.settings, self.seed, self.shuffle = rows, settings, seed, shuffle
        self.rank, self.world_size, self.accumulate = rank, world_size, accumulate
        self.num_workers, self.pin_memory, self.mixture = num_workers, pin_memory, mixture
        self.start = 0  # micro-batches of this epoch already done, when a run goes on
        self.waited = 0.0  # seconds that whoever iterates had to wait for batches
        self.sampler = self  # Lightning calls set_epoch on a loader's `sampler` only
        self.batch_sampler = None  # and looks for one
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        if getattr(self, "epoch", None) != epoch:
            self.epoch = epoch
            self.__dict__.pop("plan", None)  # two at once would take twice the memory
            self.plan = plan_epoch(
                self.rows.windows,
                self.settings,
                seed=self.seed,
                epoch=epoch,
                shuffle=self.shuffle,
                draw=self.mixture.draw(epoch) if self.mixture else None,
            )

    def __len__(self) -> int:
        return len(self.plan) * self.accumulate

    def micro_batches(self, start: int = 0) -> Iterator[MicroBatch]:
        n_micro = self.world_size * self.accumulate
        for number in range(start, len(self)):
            batch, turn = divmod(number, self.accumulate)
            yield self.plan.micro_batch(batch, turn * self.world_size + self.rank, n_micro)

    def __iter__(self) -> Iterator[Batch]:
        # A generator: nothing starts before the first batch is asked for, when Lightning has set
        # the epoch. Our own torch generator keeps the loader from drawing a seed from the global
        # one, which would shift dropout.
        start, self.start = self.start, 0
        loader = DataLoader(
            self.rows.filler,
            batch_size=None,
            sampler=map(self.rows.share, self.micro_batches(start)),  # type: ignore[arg-type]
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            generator=torch.Generator(),
        )
        began = time.perf_counter()
        try:
            for batch in loader:
                self.waited += time.perf_counter() - began
                yield batch
                began = time.perf_counter()
        except UserError as error:  # a worker's comes with its traceback
            raise UserError(str(error).strip().rpartition("UserError: ")[2]) from None
