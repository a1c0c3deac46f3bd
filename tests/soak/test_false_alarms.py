"""10,000 steps of ordinary training, over six optimizers and precisions, and no word of the guard.

A third of the settings trains a plain `nn.Embedding` with a head of its own, the others a
`DecoderLM`; all have padding in every batch, validation and weight decay.
"""

from typing import Any, NamedTuple

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer
from torch.utils.data import DataLoader

from lightning_embed import DecoderLM, PaddingGuard
from lightning_embed.training.optim import MuonAdamW, parameter_groups

pytestmark = pytest.mark.slow

VOCABULARY, ROWS, LENGTH = 50, 4, 12
STEPS = 1667  # of each setting; all six take half a minute


class Setting(NamedTuple):
    optimizer: str
    precision: Any
    plain: bool  # an nn.Embedding and an nn.Linear of nobody in particular


SETTINGS = (
    Setting("AdamW", "32-true", plain=True),
    Setting("AdamW", "bf16-mixed", plain=False),
    Setting("Adam with L2 decay", "bf16-true", plain=True),
    Setting("SGD with momentum", "32-true", plain=False),
    Setting("Adagrad", "bf16-mixed", plain=False),
    Setting("Muon + AdamW", "bf16-true", plain=False),
)


class Tiny(L.LightningModule):
    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.setting = setting
        if setting.plain:
            self.network: nn.Module = nn.Sequential(
                nn.Embedding(VOCABULARY, 16, padding_idx=1), nn.Linear(16, VOCABULARY)
            )
        else:
            self.network = DecoderLM(VOCABULARY, 16, 1, 2, d_ff=24)

    def training_step(self, ids: Tensor, batch_idx: int) -> Tensor:
        targets = ids[:, 1:].masked_fill(ids[:, 1:] == 1, -100)
        logits = self.network(ids[:, :-1]).flatten(0, 1).float()
        return F.cross_entropy(logits, targets.flatten())

    def validation_step(self, ids: Tensor, batch_idx: int) -> None:
        self.training_step(ids, batch_idx)

    def configure_optimizers(self) -> Optimizer:
        match self.setting.optimizer:
            case "AdamW":
                return AdamW(self.parameters(), lr=1e-2, weight_decay=0.1)
            case "Adam with L2 decay":
                return Adam(self.parameters(), lr=1e-2, weight_decay=0.01)
            case "SGD with momentum":
                return SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
            case "Adagrad":
                return Adagrad(self.parameters(), lr=1e-2, weight_decay=0.01)
        groups = parameter_groups(
            self.network,
            optimizer="muon",
            lr=1e-2,
            muon_lr=0.02,
            weight_decay=0.1,
            betas=(0.9, 0.95),
        )
        return MuonAdamW(groups)


def rows(count: int) -> DataLoader:
    ids = torch.randint(2, VOCABULARY, (count, ROWS, LENGTH))
    lengths = torch.randint(3, LENGTH + 1, (count, ROWS, 1))
    ids[torch.arange(LENGTH) >= lengths] = 1
    return DataLoader(list(ids), batch_size=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: f"{s.optimizer}, {s.precision}")
def test_honest_training_raises_no_alarm(
    setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    trainer = L.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        precision=setting.precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        val_check_interval=250,
        gradient_clip_val=1.0,
        callbacks=[PaddingGuard()],
    )
    module = Tiny(setting)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    trainer.fit(module, rows(STEPS), rows(2))  # an alarm may be an error
    assert capsys.readouterr().out == ""  # or a line
    assert trainer.global_step == STEPS
    assert any(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
