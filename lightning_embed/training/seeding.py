"""`Seeding`: dropout depends on a batch's number, not on a generator's saved state.

So a run that was interrupted and resumed drops the same features as one that was not. The order of
data is a function of the seed too, see `data/plan.py`.
"""

import hashlib

import lightning as L
import torch

from lightning_embed.data.batch import Batch


class Seeding(L.Callback):
    """Seeds torch's generators before every batch from (seed, epoch, batch, rank).

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int = 42) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        key = f"{self.seed} {trainer.current_epoch} {batch_idx} {trainer.global_rank}"
        number = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest(), "big")
        # Not torch.manual_seed, which visits every backend and takes 95 us.
        torch.default_generator.manual_seed(number)
        if pl_module.device.type == "cuda":
            torch.cuda.default_generators[pl_module.device.index or 0].manual_seed(number)
