"""`PaddingGuard`: proves at every optimizer step that padding vectors have not changed.

It decides when to compare, shares findings between ranks and acts on them; `evidence.py` compares
and finds the cause. Works with any LightningModule, compiled, wrapped by DDP or sharded by FSDP2.
Bits are compared, so -0, NaN and the smallest drift count.
"""

from typing import Any, Literal

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from torch.optim import Optimizer

from lightning_embed import figures
from lightning_embed.console import say
from lightning_embed.errors import TrainingStopped, UserError, require_range
from lightning_embed.padding.evidence import Finding, RowWatch
from lightning_embed.padding.padded import find_padded_embeddings, plain_name


class PaddingVectorChanged(TrainingStopped):
    """A padding vector is no longer bitwise what it was when training began.

    Attributes:
        finding: name, step, deviation, gradient and cause.
        cause: the finding's, see `evidence.Cause`.
    """

    weights_are_good = False

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding
        self.cause = finding.cause


class PaddingGuard(L.Callback):
    """Watches every embedding with a `padding_idx`, bit by bit, at every optimizer step.

    On CPU a change stops training at once. On a GPU evidence is collected on the device, without
    waiting for it, and read every `every_n_steps`, before each checkpoint and before each
    validation; the message names the step of the change and its cause.

    Args:
        on_change: "error" raises `PaddingVectorChanged`, "warn" prints a warning once, "repair"
            restores the row, clears its optimizer moments and prints a line (a row that the
            embedding's own `max_norm` shrinks stays as it is, with a warning).
        every_n_steps: optimizer steps between readings on a GPU, and between logged norms.
    """

    def __init__(
        self, on_change: Literal["error", "warn", "repair"] = "error", every_n_steps: int = 50
    ) -> None:
        if on_change not in ("error", "warn", "repair"):
            raise UserError(f"on_change is {on_change!r}; choose error, warn or repair")
        require_range("--padding_guard.every_n_steps", every_n_steps, at_least=1)
        self.on_change = on_change
        self.every_n_steps = every_n_steps
        self.watches: list[RowWatch] = []
        self._hooks: list[Any] = []
        self._averaging = False
        self._stepped = False

    # Set-up ------------------------------------------------------------------------------------

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._close()
        self._averaging = any(
            isinstance(callback, WeightAveraging | StochasticWeightAveraging)
            for callback in trainer.callbacks  # type: ignore[attr-defined]
        )
        self.watches = [RowWatch(embedding) for embedding in find_padded_embeddings(pl_module)]
        for watch in self.watches:
            norm = float(trainer.strategy.reduce(watch.reference.float().norm(), reduce_op="max"))
            if norm != 0:  # on any rank; only the first rank prints
                say("note", f"{watch.label} has norm {norm:.3g}, not zero; it is kept as it is")
        if not self.watches:
            say("note", "no embedding with a padding_idx here: nothing to guard")

        def after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            self._stepped = True
            for watch in self.watches:
                watch.look_after_step(trainer.global_step + 1, optimizer)

        for optimizer in trainer.optimizers:
            self._hooks.append(optimizer.register_step_post_hook(after_step))

    def _close(self) -> None:
        for hook in self._hooks:
            hook.remove()
        for watch in self.watches:
            watch.close()
        self._hooks, self.watches = [], []

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._close()

    # Comparing ---------------------------------------------------------------------------------

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer
    ) -> None:
        self._look_outside(trainer.global_step + 1)
        for watch in self.watches:
            watch.look_before_step()

    def _look_outside(self, step: int) -> None:
        for watch in self.watches:
            watch.look_outside(step, self._averaging)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        if not self._stepped:
            return  # in the middle of accumulation
        self._stepped = False
        step = trainer.global_step
        self._look_outside(step)
        at_interval = step % self.every_n_steps == 0
        if at_interval or pl_module.device.type == "cpu":
            self.read(trainer)
        if at_interval:
            self._log(trainer, step)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._look_outside(trainer.global_step)
        self.read(trainer)

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if batch_idx == 0:  # averaging callbacks have swapped their weights in by now
            self.on_validation_start(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._look_outside(trainer.global_step)
        state = {plain_name(key): value for key, value in checkpoint["state_dict"].items()}
        for watch in self.watches:
            saved = state.get(watch.embedding.name)
            if saved is not None:
                watch.look_at_saved(saved, trainer.global_step, self._averaging)
        # A sharded checkpoint is written by all ranks, another by the first alone.
        self.read(trainer, together=False)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.on_validation_start(trainer, pl_module)

    on_fit_end = on_train_end  # averaged weights are copied in at the end of training

    # Acting ------------------------------------------------------------------------------------

    def read(self, trainer: L.Trainer, together: bool = True) -> None:
        """Act on the evidence collected so far; waits for the device.

        Args:
            together: gather the other ranks' evidence too; every rank must then make this call.
        """
        for watch in self.watches:
            finding = self._finding(watch, together and trainer.world_size > 1)
            if finding is None:
                continue
            if self.on_change == "error":
                raise PaddingVectorChanged(finding)
            # The next forward pass would shrink a restored row again.
            if self.on_change == "repair" and finding.cause != "max_norm":
                watch.repair(trainer.optimizers)
                say("repaired", str(finding))
            else:
                watch.accept()
                say("warning", str(finding))

    @staticmethod
    def _finding(watch: RowWatch, together: bool) -> Finding | None:
        if not together:
            return None if watch.is_still() else watch.finding(watch.evidence().tolist())
        evidence = watch.evidence()
        gathered = [torch.empty_like(evidence) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, evidence)
        found = [watch.finding(each.tolist()) for each in gathered]
        return min((f for f in found if f is not None), key=lambda f: f.step, default=None)

    def _log(self, trainer: L.Trainer, step: int) -> None:
        values: dict[str, float] = {}
        for watch in self.watches:
            row = watch.embedding.row()
            if row is not None:
                suffix = "" if len(self.watches) == 1 else f"/{watch.embedding.name}"
                values[figures.PADDING_NORM + suffix] = float(row.float().norm())
                values[figures.PADDING_GRADIENT + suffix] = float(watch.gradient)
        figures.log(trainer, values, step)
