"""A tiny plain LightningModule round `DecoderLM`, and every option its training can have.

Shared by `test_prevention.py` and by `padding_ranks.py`, which runs in processes of its own.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer

from lightning_embed import DecoderLM, PaddingGuard
from lightning_embed.padding.embedding import protect_padding_row
from lightning_embed.special_tokens import IGNORE_INDEX, PAD_ID
from lightning_embed.training.optim import MuonAdamW

VOCABULARY = 20
EPOCHS, BATCHES = 3, 4  # stochastic weight averaging counts in epochs


def muon_adamw(module: nn.Module, weight_decay: float) -> Optimizer:
    """Muon for the matrices of the block, AdamW for the rest, decay for all."""
    named = dict(module.named_parameters())
    matrices = [p for n, p in named.items() if p.ndim == 2 and "embedding" not in n]
    others = [p for p in named.values() if all(p is not m for m in matrices)]
    return MuonAdamW(
        [
            {"params": matrices, "rule": "muon", "lr": 0.02, "weight_decay": weight_decay},
            {"params": others, "rule": "adamw", "lr": 0.02, "weight_decay": weight_decay},
        ]
    )


OPTIMIZERS: dict[str, Callable[[nn.Module, float], Optimizer]] = {
    "adamw": lambda m, decay: AdamW(m.parameters(), lr=0.02, weight_decay=decay),
    "adam_l2": lambda m, decay: Adam(m.parameters(), lr=0.02, weight_decay=decay),
    "sgd": lambda m, decay: SGD(m.parameters(), lr=0.1, momentum=0.9, weight_decay=decay),
    "adagrad": lambda m, decay: Adagrad(m.parameters(), lr=0.02, weight_decay=decay),
    "muon_adamw": muon_adamw,
}
AVERAGING: dict[str, Callable[[], list[L.Callback]]] = {
    "none": list,
    "ema": lambda: [EMAWeightAveraging(decay=0.5)],
    "swa": lambda: [StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=2)],
}


class Options(NamedTuple):
    """One training; the names of the fields are the axes."""

    optimizer: str = "adamw"
    precision: Any = "32-true"
    averaging: str = "none"
    accumulation: int = 1
    clipping: float | None = None
    weight_decay: float = 0.0
    head: str = "tied"
    compile: str = ""  # or a backend


class Small(L.LightningModule):
    """A language model of one block; `head="foreign"` is an `nn.Linear` tied to the embedding."""

    def __init__(self, options: Options, padding_idx: int = PAD_ID) -> None:
        super().__init__()
        self.options = options
        self.network = DecoderLM(VOCABULARY, 8, 1, 1, d_ff=12, padding_idx=padding_idx)
        self.foreign = nn.Linear(8, VOCABULARY, bias=False)
        if options.head == "foreign":
            self.foreign.weight = self.network.embedding.weight
            self.protect()
        else:
            del self.foreign

    def protect(self) -> None:
        protect_padding_row(self.network.embedding.weight, self.network.embedding.padding_idx)

    def configure_model(self) -> None:
        if self.options.compile:
            self.network.compile(backend=self.options.compile, dynamic=False)

    @property
    def weight(self) -> Tensor:
        return self.network.embedding.weight

    def training_step(self, ids: Tensor, batch_idx: int) -> Tensor:
        padding = self.network.embedding.padding_idx
        targets = ids[:, 1:].masked_fill(ids[:, 1:] == padding, IGNORE_INDEX)
        if self.options.head == "foreign":
            logits = self.foreign(self.network.hidden(ids[:, :-1]))
        else:
            logits = self.network(ids[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    def validation_step(self, ids: Tensor, batch_idx: int) -> None:
        self.training_step(ids, batch_idx)

    def configure_optimizers(self) -> Optimizer:
        return OPTIMIZERS[self.options.optimizer](self, self.options.weight_decay)


def batches(count: int = BATCHES, padding_idx: int = PAD_ID, seed: int = 0) -> Any:
    """Rows of five ids, each ending in padding; other batches for each rank are not needed."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, VOCABULARY - 1, (count, 3, 6), generator=generator)
    ids[:, :, -2:] = padding_idx
    ids[:, 0, -2] = 2
    return torch.utils.data.DataLoader(list(ids), batch_size=None)  # type: ignore[arg-type]


def trainer_for(options: Options, *callbacks: L.Callback, **settings: Any) -> L.Trainer:
    """A quiet trainer with these options and the guard."""
    quiet: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "max_epochs": EPOCHS,
    }
    return L.Trainer(
        precision=options.precision,
        accumulate_grad_batches=options.accumulation,
        gradient_clip_val=options.clipping,
        callbacks=[*AVERAGING[options.averaging](), *callbacks, PaddingGuard()],
        **(quiet | settings),
    )


def is_plus_zero(row: Tensor) -> bool:
    """Bitwise, and there at all."""
    row = row.detach().contiguous()
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[row.element_size()]
    return row.numel() > 0 and not bool(row.view(bits).count_nonzero())


def nonzero_rows_in_checkpoint(path: Path, padding_idx: int = PAD_ID) -> list[str]:
    """Names of the matrices over the vocabulary, in weights, averages and moments, whose padding
    row is not +0; the names of all when there is none, so that a test cannot pass on nothing."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    matrices: dict[str, Tensor] = {}

    def collect(name: str, value: Any) -> None:
        if isinstance(value, Tensor) and value.ndim == 2 and value.shape[0] == VOCABULARY:
            matrices[name] = value
        elif isinstance(value, dict):
            for key, child in value.items():
                collect(f"{name}.{key}", child)
        elif isinstance(value, list | tuple):
            for number, child in enumerate(value):
                collect(f"{name}.{number}", child)

    collect("", {k: v for k, v in checkpoint.items() if "state" in k})
    if not any("embedding.weight" in name for name in matrices):
        return ["no embedding in the checkpoint"]
    return [name for name, matrix in matrices.items() if not is_plus_zero(matrix[padding_idx])]
