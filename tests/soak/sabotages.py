"""Twelve ways to move a padding vector, for tests that see whether `PaddingGuard` names each.

Nothing prevents them: a plain `nn.Embedding(padding_idx=1)` in a plain LightningModule.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.utils.data import DataLoader, TensorDataset

from lightning_embed import PaddingGuard, PaddingVectorChanged

VOCABULARY, WIDTH, STEPS, AT = 20, 8, 12, 5


class Plain(L.LightningModule):
    """An embedding, a head, cross-entropy: what anybody writes."""

    def __init__(self, optimizer: Callable[..., Optimizer], tied: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH, padding_idx=1)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.make_optimizer = optimizer
        if tied:
            self.head.weight = self.embedding.weight

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        (ids,) = batch
        logits = self.head(self.embedding(ids)).flatten(0, 1)
        return F.cross_entropy(logits, ids.flatten(), ignore_index=1)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.training_step(batch, batch_idx)

    def configure_optimizers(self) -> Optimizer:
        return self.make_optimizer(self.parameters())


def with_row(module: Plain, value: float) -> Plain:
    with torch.no_grad():
        module.embedding.weight[1] = value
    return module


class Sabotage(NamedTuple):
    """What is done to `module` before its step AT + 1 begins, and what should be found."""

    name: str
    cause: str
    step: int
    module: Callable[[], Plain]
    act: Callable[[L.Trainer, Plain], object] = lambda trainer, module: None
    callbacks: Callable[[], list[L.Callback]] = list


def adamw(parameters: Any) -> Optimizer:
    return AdamW(parameters, lr=1e-2, weight_decay=0.01)


def strong_decay(parameters: Any) -> Optimizer:
    return AdamW(parameters, lr=1e-2, weight_decay=1.0)  # less would round to nothing in bfloat16


def without_decay(parameters: Any) -> Optimizer:
    return AdamW(parameters, lr=1e-2, weight_decay=0.0)


def l2_adam(parameters: Any) -> Optimizer:
    return Adam(parameters, lr=1e-2, weight_decay=0.1)


def sgd(parameters: Any) -> Optimizer:
    return SGD(parameters, lr=0.1, momentum=0.9)


def reinitialise(trainer: L.Trainer, module: Plain) -> None:
    nn.init.normal_(module.embedding.weight)


def apply_kaiming(trainer: L.Trainer, module: Plain) -> None:
    def init(child: nn.Module) -> None:
        if isinstance(child, nn.Embedding | nn.Linear):
            nn.init.kaiming_uniform_(child.weight)

    module.apply(init)


def leave_a_moment(trainer: L.Trainer, module: Plain) -> None:
    """As after steps in which the row was trained, before it was frozen and zeroed."""
    state = trainer.optimizers[0].state[module.embedding.weight]
    state["exp_avg"][1], state["exp_avg_sq"][1] = 0.1, 0.01


def edit_momentum(trainer: L.Trainer, module: Plain) -> None:
    trainer.optimizers[0].state[module.embedding.weight]["momentum_buffer"][1] = 0.1


def spoil_average(trainer: L.Trainer, module: Plain) -> None:
    averaging = next(c for c in trainer.callbacks if isinstance(c, EMAWeightAveraging))
    with torch.no_grad():
        averaging._average_model.module.embedding.weight[1] = 0.3


def load_another(trainer: L.Trainer, module: Plain) -> None:
    state = module.state_dict()
    state["embedding.weight"] = torch.randn(VOCABULARY, WIDTH)
    module.load_state_dict(state)


def nudge(trainer: L.Trainer, module: Plain) -> None:
    module.embedding.weight.data[1] += 1e-7


def write_nan(trainer: L.Trainer, module: Plain) -> None:
    module.embedding.weight.data[1, 0] = float("nan")


def resize_badly(trainer: L.Trainer, module: Plain) -> None:
    old = module.embedding.weight.data
    module.embedding.weight = nn.Parameter(torch.cat([old[5:7], old]))
    module.embedding.num_embeddings += 2


SABOTAGES = (
    Sabotage("normal_ on the weight", "reinit", 6, lambda: Plain(adamw), reinitialise),
    Sabotage("kaiming through model.apply", "reinit", 6, lambda: Plain(adamw), apply_kaiming),
    Sabotage("tied nn.Linear head", "tied_head", 1, lambda: Plain(adamw, tied=True)),
    Sabotage(
        "Adam with L2 decay on a non-zero row",
        "weight_decay",
        1,
        lambda: with_row(Plain(l2_adam), 0.5),
    ),
    Sabotage(
        "AdamW decay on a non-zero row",
        "weight_decay",
        1,
        lambda: with_row(Plain(strong_decay), 0.5),
    ),
    Sabotage(
        "a moment left from before a freeze",
        "stale_moment",
        6,
        lambda: Plain(without_decay),
        leave_a_moment,
    ),
    Sabotage(
        "an EMA that mixes in a non-zero row",
        "averaging",
        8,  # where validation puts the average in
        lambda: Plain(adamw),
        spoil_average,
        lambda: [EMAWeightAveraging(decay=0.9)],
    ),
    Sabotage("a state dict loaded between steps", "loading", 6, lambda: Plain(adamw), load_another),
    Sabotage(".data[1] += 1e-7", "in_place", 6, lambda: Plain(adamw), nudge),
    Sabotage("a NaN in the row", "non_finite", 6, lambda: Plain(adamw), write_nan),
    Sabotage("a resize that moves the row", "resize", 6, lambda: Plain(adamw), resize_badly),
    Sabotage(
        "an SGD momentum buffer edited by hand",
        "stale_moment",
        6,
        lambda: Plain(sgd),
        edit_momentum,
    ),
)


class Saboteur(L.Callback):
    def __init__(self, sabotage: Sabotage) -> None:
        self.sabotage = sabotage

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        if trainer.global_step == AT:
            self.sabotage.act(trainer, pl_module)


def caught(sabotage: Sabotage, precision: Any = "32-true", **guard: Any) -> tuple[int, str] | None:
    """Step and cause that the guard reports, or None when it stays silent."""
    torch.manual_seed(0)
    data = DataLoader(TensorDataset(torch.randint(2, VOCABULARY, (96, 6))), batch_size=8)
    trainer = L.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        val_check_interval=8,
        callbacks=[*sabotage.callbacks(), Saboteur(sabotage), PaddingGuard(**guard)],
    )
    try:
        trainer.fit(sabotage.module(), data, data)
    except PaddingVectorChanged as error:
        return error.finding.step, error.cause
    return None
