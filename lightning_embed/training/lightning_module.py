"""`LanguageModel`: the LightningModule round `DecoderLM`.

Knows: one shared step, the loss's division by the global batch, evaluation metrics, optimizer and
schedule, when to compile, what a checkpoint carries. Leaves to others: the network (`model.py`),
batches (`datamodule.py`, met only through `trainer.datamodule`), progress, guards (`callbacks/`).
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lightning_embed.checkpointing.compatibility import FORMAT, FORMAT_KEY, Candidate, check
from lightning_embed.checkpointing.files import fetched, read_checkpoint
from lightning_embed.checkpointing.fsdp2 import shard
from lightning_embed.data.batch import Batch
from lightning_embed.model.compiling import compiling_pays, why_not_compile
from lightning_embed.model.decoder import DecoderLM
from lightning_embed.model.loss import Scores
from lightning_embed.model.sizes import network_settings, require_possible, take_sizes
from lightning_embed.padding.embedding import InitName, clear_padding_moments
from lightning_embed.special_tokens import IGNORE_INDEX
from lightning_embed.training.metrics import Evaluation, LanguageModelMetrics
from lightning_embed.training.optim import (
    MuonAdamW,
    parameter_groups,
    schedule_factor,
    take_settings,
)


class LanguageModel(L.LightningModule):
    """Trains a `DecoderLM`; calling it on ids `(B, T)` gives logits `(B, T, V)`.

    Args:
        vocab_size: ids of the model; unset, those of the data's tokenizer.
        max_length: positions it is trained with; unset, the data's.
        d_model: width.
        n_layers: depth.
        n_heads: attention heads.
        n_kv_heads: key/value heads; unset, as many as `n_heads`.
        d_ff: hidden width of the feed-forward; unset, 8/3 of `d_model`.
        tied: the output head is the embedding matrix.
        qk_norm: normalise queries and keys.
        dropout: probability on the embedding and each residual branch.
        scale_embedding: multiply embeddings by sqrt(d_model).
        init: the embedding's initialisation.
        rope_theta: rotary base frequency.
        optimizer: "muon" steps the blocks' matrices with Muon and the rest with AdamW.
        lr: peak learning rate of AdamW's parameters.
        muon_lr: peak learning rate of Muon's matrices.
        weight_decay: of the blocks' matrices; embeddings and norms never decay.
        betas: AdamW's.
        schedule: "wsd" is warm-up, stable, linear decay; "cosine"; or "constant" after warm-up.
        warmup_steps: optimizer steps of warm-up; unset, 2 % of the schedule.
        schedule_steps: length of the schedule; unset, of the run.
        decay_fraction: share of the schedule that "wsd" decays over.
        final_fraction: learning rate at the end as a share of the peak.
        compile: compile the blocks; "auto" does where a compiler works, unless the run's data and
            limits say that it is over before compiling pays.
    """

    def __init__(
        self,
        vocab_size: int | None = None,
        max_length: int | None = None,
        d_model: int = 256,
        n_layers: int = 4,
        n_heads: int = 4,
        n_kv_heads: int | None = None,
        d_ff: int | None = None,
        tied: bool = True,
        qk_norm: bool = True,
        dropout: float = 0.0,
        scale_embedding: bool = False,
        init: InitName = "normal",
        rope_theta: float = 10_000.0,
        optimizer: Literal["muon", "adamw"] = "muon",
        lr: float = 3e-3,
        muon_lr: float = 0.02,
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.95),
        schedule: Literal["wsd", "cosine", "constant"] = "wsd",
        warmup_steps: int | None = None,
        schedule_steps: int | None = None,
        decay_fraction: float = 0.5,
        final_fraction: float = 0.0,
        compile: bool | Literal["auto"] = "auto",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self._asked_schedule_steps = schedule_steps
        self.model: DecoderLM | None = None
        self.tokenizer_json: str | None = None  # the tokenizer's text travels in the checkpoint
        self.metrics = LanguageModelMetrics()
        self.evaluation: Evaluation | None = None  # what the last validation or test found
        self.step_loss = torch.zeros(())  # this optimizer step's share of the global loss so far
        # Of this step, once somebody has taken it; the gradients must not change any more.
        self.gradient_norm: Tensor | None = None
        self.eager: str | None = "training has not begun"  # why nothing is compiled; None compiles
        if vocab_size is not None:
            self.configure_model()

    # Building ------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Build the network once the vocabulary is known; called again, does nothing."""
        if self.model is not None:
            return
        self.require_possible(getattr(self._trainer, "datamodule", None))
        self.model = DecoderLM(**network_settings(self.hparams))
        if self.device_mesh is not None:
            shard(self.model, self.device_mesh["data_parallel"])

    def require_possible(self, data: Any) -> None:
        """Take sizes from the data and refuse, before anything is built or written, a network that
        cannot be (UserError)."""
        take_sizes(self.hparams, data)
        require_possible(self.hparams)

    @property
    def network(self) -> DecoderLM:
        self.configure_model()
        assert self.model is not None
        return self.model

    def setup(self, stage: str) -> None:
        data = getattr(self.trainer, "datamodule", None)
        if data is not None:
            self.tokenizer_json = data.prepared.tokenizer.to_json()

    def apply(self, fn: Callable[[nn.Module], None]) -> Self:
        super().apply(fn)  # fn came to this module last, and may have walked all parameters
        if self.model is not None:
            self.model.embedding.zero_padding_()
        return self

    def forward(self, ids: Tensor) -> Tensor:
        return self.network(ids)

    # Steps -----------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """This micro-batch's share of the global batch's mean loss.

        Lightning averages gradients over ranks and divides by the accumulation; both are undone, so
        that gradients are those of one big batch however it was split.
        """
        loss = self.network.loss(
            batch.ids, batch.targets, segments=batch.segments, repack=batch.repack
        )
        share = loss / max(1, batch.global_targets)
        mine = share.detach()
        begins = batch_idx % self.trainer.accumulate_grad_batches == 0
        self.step_loss = mine if begins else self.step_loss + mine
        divided_by = self.trainer.world_size * self.trainer.accumulate_grad_batches
        return share if divided_by == 1 else share * divided_by

    def global_step_loss(self) -> float:
        """Mean loss of the last global batch; every rank must ask, and waits for its device."""
        return float(self.trainer.strategy.reduce(self.step_loss, reduce_op="sum"))

    def _score(self, batch: Batch) -> Scores:
        return self.network.score(
            batch.ids, batch.targets, segments=batch.segments, repack=batch.repack
        )

    def _evaluate(self, batch: Batch) -> None:
        scores = self._score(batch)
        real = batch.targets != IGNORE_INDEX
        self.metrics.update(scores, real, batch.group, batch.n_bytes)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """For each real row: its source's number, summed nats, targets and bytes."""
        scores = self._score(batch)
        targets = (batch.targets != IGNORE_INDEX).sum(dim=1)
        used = targets > 0
        return {
            "source": batch.group[used],
            "nll": scores.nll.sum(dim=1)[used],
            "targets": targets[used],
            "n_bytes": batch.n_bytes[used],
        }

    def on_validation_epoch_start(self) -> None:
        self.metrics.reset()

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test")

    def _log_metrics(self, stage: str) -> None:
        self.evaluation = self.metrics.compute()  # already the same on all ranks
        values = {f"{stage}/{name}": value for name, value in self.evaluation.scalars.items()}
        self.log_dict(values, logger=False)  # its step would be one behind that of the weights
        if self.trainer.sanity_checking:
            return
        for logger in self.trainer.loggers:
            logger.log_metrics(values, self.trainer.global_step)

    # Optimization ----------------------------------------------------------------------------

    def configure_optimizers(self) -> OptimizerLRScheduler:
        # A scaler's found_inf and unscaling are Lightning's business; fused AdamW is safe with
        # both because MuonAdamW does not claim to scale gradients itself.
        optimizer = MuonAdamW(self._groups(), fused=self.device.type in ("cpu", "cuda"))
        scheduler = LambdaLR(optimizer, self._schedule())
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def _schedule(self) -> Callable[[int], float]:
        """The learning rate's share of its peak at each step. Its length is settled when a run
        begins: going on for longer must not bend it."""
        h = self.hparams
        if h["schedule_steps"] is None:
            h["schedule_steps"] = self.planned_steps()
        total = h["schedule_steps"]
        warmup = max(1, round(0.02 * total)) if h["warmup_steps"] is None else h["warmup_steps"]
        return partial(
            schedule_factor,
            schedule=h["schedule"],
            total_steps=total,
            warmup_steps=warmup,
            decay_fraction=h["decay_fraction"],
            final_fraction=h["final_fraction"],
        )

    def _groups(self) -> list[dict[str, Any]]:
        h = self.hparams
        return parameter_groups(
            self.network,
            optimizer=h["optimizer"],
            lr=h["lr"],
            muon_lr=h["muon_lr"],
            weight_decay=h["weight_decay"],
            betas=tuple(h["betas"]),
        )

    def planned_steps(self) -> int:
        """Optimizer steps of the whole run, from the trainer's limits and the data's plan.

        Not `trainer.estimated_stepping_batches`: asking it builds the loader too early.
        """
        trainer = self.trainer
        limits = [trainer.max_steps] if trainer.max_steps > 0 else []
        if trainer.max_epochs is not None and trainer.max_epochs > 0:
            data = getattr(trainer, "datamodule", None)
            if data is not None:
                limits.append(trainer.max_epochs * data.steps_per_epoch)
        return min(limits, default=1000)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Lightning's, but a norm that was taken is not taken again: all gradients are read for
        it, one per cent of a small model's step. On a CPU, where asking is free, one within the
        limit leaves them alone, which Lightning would multiply by 1."""
        norm, self.gradient_norm = self.gradient_norm, None
        most = gradient_clip_val or 0.0
        if norm is None or most <= 0 or gradient_clip_algorithm == "value":
            super().configure_gradient_clipping(
                optimizer, gradient_clip_val, gradient_clip_algorithm
            )
        elif isinstance(norm, DTensor) or norm.device.type != "cpu" or not norm + 1e-6 <= most:
            clip_grads_with_norm_(self.parameters(), most, norm)

    def on_train_start(self) -> None:
        """After a resume, today's settings win over those that torch restores with the optimizer
        and the scheduler, and a stale moment must not move a padding row."""
        self.eager = self.trainer.strategy.broadcast(self.why_eager())  # all do the same
        scheduler = self.lr_schedulers()
        if not isinstance(scheduler, LambdaLR):
            return
        embedding = self.network.embedding
        clear_padding_moments(scheduler.optimizer, embedding.weight, embedding.padding_idx or 0)
        take_settings(scheduler, self._groups(), self._schedule())

    # Compiling -------------------------------------------------------------------------------

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # The first step of a run is always eager, resumed or not, so that a loss is on screen
        # before the compiler has worked and a step's arithmetic depends on its number alone.
        if self.trainer.global_step >= 1 and self.eager is None:
            self.network.compile_parts()

    def why_eager(self) -> str | None:
        """None where training is compiled, else the reason in a few words; never a matter of when
        it is asked, as a run that goes on must go on alike."""
        wanted = self.hparams["compile"]
        reason = why_not_compile(self.device.type) if wanted else "model.compile is false"
        data = getattr(self.trainer, "datamodule", None)
        if reason is not None or wanted != "auto" or data is None:
            return reason
        steps = self.planned_steps()
        tokens = steps * data.targets_per_step / self.trainer.world_size
        flops = self.network.training_flops(tokens, tokens * data.max_length / 2)
        if compiling_pays(flops, self.device):
            return None
        return f"{steps} steps are over before compiling pays; --model.compile true compiles"

    # Checkpoints -----------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["tokenizer"] = self.tokenizer_json
        checkpoint[FORMAT_KEY] = FORMAT

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the tokenizer and, unless another was asked for, the schedule's length.

        Raises:
            UserError: its format, or its tensors' names or shapes, are not this model's.
        """
        training = self._trainer is not None and self.trainer.state.fn == "fit"
        candidate = Candidate(
            Path("the checkpoint"), "train" if training else "evaluate", checkpoint
        )
        check(candidate, "content")
        self.tokenizer_json = checkpoint.get("tokenizer")
        if self._asked_schedule_steps is None:
            self.hparams["schedule_steps"] = checkpoint["hyper_parameters"].get("schedule_steps")
        self.configure_model()
        candidate.state_dict = self.state_dict()
        candidate.groups = {group["name"]: group["params"] for group in self._groups()}
        check(candidate, "tensors")

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:  # type: ignore[override]
        """Lightning's, but for shards too, with checksums verified, and never with code: not from
        a URL either, whatever `weights_only` or the environment says."""
        is_path = isinstance(checkpoint_path, str | Path)
        candidate = Candidate(Path(checkpoint_path if is_path else "the checkpoint"), "generate")
        if is_path and "://" not in str(checkpoint_path):
            check(candidate, "file")
        if not candidate.path.is_file():
            checkpoint_path = fetched(checkpoint_path)
            candidate.checkpoint = read_checkpoint(checkpoint_path, str(candidate.path))
            checkpoint_path.seek(0)
        check(candidate, "content")
        kwargs["weights_only"] = True
        return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)
