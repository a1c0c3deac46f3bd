"""`PaddingGuard` on a LightningModule that knows nothing of this project.

The module does what many do: it initialises every matrix again, `nn.Embedding`'s padding row with
the others. The guard names it, or repairs it.
"""

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_embed import PaddingGuard, PaddingVectorChanged

PAD = 0


class Classifier(L.LightningModule):
    """Bags of words to one of two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16, padding_idx=PAD)
        self.head = nn.Linear(16, 2)

    def on_train_epoch_start(self) -> None:
        nn.init.normal_(self.embedding.weight)  # the mistake: also the padding row

    def training_step(self, ids: Tensor, batch_idx: int) -> Tensor:
        logits = self.head(self.embedding(ids).sum(1))
        return F.cross_entropy(logits, ids[:, 0] % 2)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def train(guard: PaddingGuard) -> Classifier:
    torch.manual_seed(0)
    ids = torch.randint(1, 50, (64, 8))
    ids[:, 5:] = PAD
    module = Classifier()
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[guard],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(ids, batch_size=16))
    return module


if __name__ == "__main__":
    try:
        train(PaddingGuard())
    except PaddingVectorChanged as change:
        print(change)
        assert change.cause == "reinit"
    module = train(PaddingGuard(on_change="repair"))
    assert not module.embedding.weight[PAD].any()
