"""`LossWatch`: keeps losses and gradients that are not finite from the weights; counts spikes.

On CPU the gradient's norm is checked before the step. On a GPU the optimizer skips the step by
itself (`found_inf` in `optim.py`); losses and norms are collected on the device, without waiting
for it, and read every `every_n_steps`, before each checkpoint and before each validation. A message
names the step and the documents of its batch.
"""

import math
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from lightning_embed import figures
from lightning_embed.console import say
from lightning_embed.data.batch import Batch
from lightning_embed.errors import TrainingStopped, UserError, require_range
from lightning_embed.library_internals import is_accumulating
from lightning_embed.special_tokens import PAD_ID
from lightning_embed.training.lightning_module import LanguageModel
from lightning_embed.training.optim import MuonAdamW, whole_norm

MEMORY = 0.95  # decay of the loss' running mean and variance
SPIKE = 6.0  # standard deviations above the mean that make a loss a spike
SETTLED = 50  # steps before which nothing counts as a spike
SHOWN = 5  # documents named in a message, and spikes at the end


class Diverged(TrainingStopped):
    """A loss or gradient was not finite, and the weights are those before that step; or they are
    not finite themselves."""


class LossWatch(L.Callback):
    """Stops or skips a step whose gradient is not finite, and logs each epoch's mean loss.

    In `16-mixed` infinities are normal, and the gradient scaler skips those steps itself.

    Args:
        on_non_finite: "error" stops the run, "warn" prints a warning and skips the step.
        every_n_steps: optimizer steps between readings.
    """

    def __init__(
        self, on_non_finite: Literal["error", "warn"] = "error", every_n_steps: int = 50
    ) -> None:
        if on_non_finite not in ("error", "warn"):
            raise UserError(f"on_non_finite is {on_non_finite!r}; choose error or warn")
        require_range("--loss_watch.every_n_steps", every_n_steps, at_least=1)
        self.on_non_finite = on_non_finite
        self.every_n_steps = every_n_steps
        self.skipped: list[int] = []  # steps
        self.spikes: list[int] = []
        self._mean = self._variance = 0.0
        self._steps = 0  # that mean and variance are of
        self._epoch_loss = self._epoch_targets = 0.0
        self._losses = self._norms = torch.zeros(0)
        self._norm: Tensor | None = None
        self._group_norms: dict[str, Tensor] = {}
        self._pending: list[tuple[int, int]] = []  # step and real targets of each unread entry
        self._together = True
        self._trainer: L.Trainer | None = None

    def state_dict(self) -> dict[str, Any]:
        """Figures of all steps so far; reads those still pending."""
        if self._pending and self._trainer is not None:
            self.read(self._trainer)
        return {
            "skipped": list(self.skipped),
            "spikes": list(self.spikes),
            "running": [self._mean, self._variance, self._steps],
            "epoch": [self._epoch_loss, self._epoch_targets],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.skipped, self.spikes = list(state_dict["skipped"]), list(state_dict["spikes"])
        self._mean, self._variance, self._steps = state_dict["running"]
        self._epoch_loss, self._epoch_targets = state_dict["epoch"]

    # Checking ----------------------------------------------------------------------------------
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._trainer, self._together = trainer, True
        self._losses = torch.zeros(self.every_n_steps, device=pl_module.device)
        self._norms = torch.zeros(self.every_n_steps, device=pl_module.device)
        self._pending = []

    def on_before_optimizer_step(  # type: ignore[override]
        self, trainer: L.Trainer, pl_module: LanguageModel, optimizer: Optimizer
    ) -> None:
        precision = trainer.precision_plugin
        if isinstance(precision, MixedPrecision) and precision.scaler is not None:
            return
        parameters = precision.main_params(optimizer)
        norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
        self._measure(optimizer, (trainer.global_step + 1) % self.every_n_steps == 0)
        pl_module.gradient_norm = norm  # for clipping, which follows
        self._norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if pl_module.device.type == "cuda":
            optimizer.found_inf = (~self._norm.isfinite()).float()  # type: ignore[attr-defined]
            return
        bad = not math.isfinite(self._norm)
        optimizer.found_inf = torch.tensor(1.0) if bad else None  # type: ignore[attr-defined]
        if bad and self.on_non_finite == "error":
            raise self._diverged(trainer, trainer.global_step + 1)

    def _measure(self, optimizer: Optimizer, now: bool) -> None:
        """Have norms of each group's gradients and updates taken in this step, or not."""
        if isinstance(optimizer, MuonAdamW):
            optimizer.measures = now
            if now:
                self._group_norms = {
                    group.get("name", group["rule"]): whole_norm(
                        p.grad for p in group["params"] if p.grad is not None
                    )
                    for group in optimizer.param_groups
                }

    def on_train_batch_end(  # type: ignore[override]
        self,
        trainer: L.Trainer,
        pl_module: LanguageModel,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        if is_accumulating(trainer):
            return
        index = len(self._pending)
        if pl_module.device.type == "cpu":
            self._require_finite_weights(trainer)
        self._losses[index] = pl_module.step_loss
        self._norms[index] = 0.0 if self._norm is None else self._norm
        self._pending.append((trainer.global_step, batch.global_targets))
        full = len(self._pending) == self.every_n_steps
        if full or trainer.global_step % self.every_n_steps == 0:  # as if it was never interrupted
            self.read(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self.read(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.read(trainer)
        if self._epoch_targets:
            figures.log(trainer, {figures.EPOCH_LOSS: self._epoch_loss / self._epoch_targets})
        self._epoch_loss = self._epoch_targets = 0.0

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.read(trainer)
        for steps, what in (
            (self.spikes, "loss spikes"),
            (self.skipped, "steps skipped, not finite"),
        ):
            if steps:
                shown = ", ".join(f"{step:,}" for step in steps[:SHOWN])
                more = ", ..." if len(steps) > SHOWN else ""
                say("loss", f"{len(steps)} {what}, at step {shown}{more}")

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._together = False  # other processes may never call `read` again
        self._pending = []

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._trainer = None

    # Reading -----------------------------------------------------------------------------------

    def read(self, trainer: L.Trainer) -> None:
        """Evaluate the pending steps; waits for the device, and for the other processes.

        Raises:
            Diverged: a step was not finite and `on_non_finite` is "error", or the weights are not.
        """
        pending, self._pending = self._pending, []
        if not pending:
            return
        losses: Any = self._losses[: len(pending)].clone()
        if trainer.world_size > 1 and self._together:
            losses = trainer.strategy.reduce(losses, reduce_op="sum")
        norms = self._norms[: len(pending)].tolist()
        for (step, targets), loss, norm in zip(pending, losses.tolist(), norms, strict=True):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                if self.on_non_finite == "error":
                    raise self._diverged(trainer, step)
                self.skipped.append(step)
                say("warning", f"{self._description(trainer, step)}; the step was skipped")
                continue
            self._epoch_loss += loss * targets
            self._epoch_targets += targets
            self._add(step, loss)
        values = {figures.SPIKES: float(len(self.spikes))}
        if self._norm is not None:  # with a gradient scaler no norm is taken
            values[figures.GRADIENT_NORM] = norms[-1]
        figures.log(trainer, values | self._by_group(trainer), pending[-1][0])
        self._require_finite_weights(trainer)

    def _by_group(self, trainer: L.Trainer) -> dict[str, float]:
        """Norms of gradients and updates that were measured and not read yet, by their tags."""
        found = {f"{figures.GRADIENT_NORM}_{k}": float(v) for k, v in self._group_norms.items()}
        self._group_norms = {}
        for optimizer in trainer.optimizers:
            if isinstance(optimizer, MuonAdamW):
                norms, optimizer.update_norms = optimizer.update_norms, {}
                found |= {f"{figures.UPDATE_NORM}_{k}": float(v) for k, v in norms.items()}
        return found

    def _add(self, step: int, loss: float) -> None:
        """Count a spike, then update the running mean and variance."""
        if self._steps >= SETTLED and loss > self._mean + SPIKE * math.sqrt(self._variance):
            self.spikes.append(step)
        rate = max(1 - MEMORY, 1 / (self._steps + 1))
        distance = loss - self._mean
        self._mean += rate * distance
        self._variance = (1 - rate) * (self._variance + rate * distance**2)
        self._steps += 1

    def _require_finite_weights(self, trainer: L.Trainer) -> None:
        """Where settings are absurd (0 / 0, or 0 times an infinite rate), the optimizer itself
        makes NaN of finite gradients. The padding row has none and shows it; looking at one row
        costs nothing. Where that row alone is not finite, it is for `PaddingGuard` to say why."""
        module = trainer.lightning_module
        assert isinstance(module, LanguageModel)
        weight = module.network.embedding.weight
        if isinstance(weight, DTensor) or weight[PAD_ID].isfinite().all():
            return
        others = torch.arange(len(weight), device=weight.device) != PAD_ID
        if not weight[others].isfinite().all():
            found = self._description(trainer, trainer.global_step, "weights are not finite after")
            stopped = Diverged(
                f"{found}: the optimizer's settings are too large; begin again, or from an earlier"
                " checkpoint, with a lower --model.lr and --model.muon_lr, and with --model.betas"
                " and --model.weight_decay near their defaults"
            )
            stopped.weights_are_good = False
            raise stopped

    @staticmethod
    def _description(
        trainer: L.Trainer, step: int, what: str = "loss or gradient is not finite at"
    ) -> str:
        described = getattr(getattr(trainer, "datamodule", None), "documents_of_step", None)
        names = described(step) if described else []
        if not names:
            return f"{what} step {step}"
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        return f"{what} step {step} (documents: {', '.join(names[:SHOWN])}{more})"

    def _diverged(self, trainer: L.Trainer, step: int) -> Diverged:
        return Diverged(
            f"{self._description(trainer, step)}; the step was not taken: go on from the last"
            " checkpoint with a lower --model.lr and --model.muon_lr, look at these documents, or"
            " skip such steps with --loss_watch.on_non_finite warn"
        )
