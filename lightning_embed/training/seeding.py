"""`Seeding`: randomness of a training step is a function of its number, not of a saved state.

Knows: how to seed torch's generators cheaply. Leaves to others: the order of data (`batching.py`).

Dropout then does not care how often a run was interrupted; see the recipe in `batching.PlanLoader`.
"""

import hashlib

import lightning as L
import torch

from lightning_embed.data.batch import Batch


class Seeding(L.Callback):
    """Seeds dropout before every batch from (seed, epoch, batch, rank).

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int = 42) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        place = f"{self.seed} {trainer.current_epoch} {batch_idx} {trainer.global_rank}"
        number = int.from_bytes(hashlib.blake2b(place.encode(), digest_size=7).digest(), "big")
        # torch.manual_seed does the same for every backend there is, and takes 95 us.
        torch.default_generator.manual_seed(number)
        if pl_module.device.type == "cuda":
            torch.cuda.default_generators[pl_module.device.index or 0].manual_seed(number)
