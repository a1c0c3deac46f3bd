"""`LanguageModel`: the LightningModule that trains and evaluates a `DecoderLM`.

It divides the loss by the real targets of the global batch, builds optimizer and schedule, decides
whether to compile, and puts the tokenizer into checkpoints. The network is `model/decoder.py`; the
data module is reached only through `trainer.datamodule`.
"""

from collections.abc import Callable, Mapping
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

from lightning_embed import figures
from lightning_embed.arithmetic import fastest_format
from lightning_embed.checkpointing.compatibility import (
    AS_BEGUN,
    FORMAT,
    FORMAT_KEY,
    Candidate,
    check,
)
from lightning_embed.checkpointing.fsdp2 import shard
from lightning_embed.checkpointing.load import opened
from lightning_embed.data.batch import Batch
from lightning_embed.errors import UserError, require_range
from lightning_embed.evaluation.metrics import (
    Evaluation,
    LanguageModelMetrics,
    NamedSums,
    WindowScores,
    WindowSums,
)
from lightning_embed.library_internals import trainer_of
from lightning_embed.model.compiling import compiling_pays, why_not_compile
from lightning_embed.model.decoder import DecoderLM
from lightning_embed.model.loss import Scores
from lightning_embed.padding.embedding import clear_padding_moments
from lightning_embed.special_tokens import IGNORE_INDEX, PAD_ID
from lightning_embed.training.freezing import freeze as freeze_parts
from lightning_embed.training.optim import (
    MuonAdamW,
    parameter_groups,
    take_settings,
    turns,
)
from lightning_embed.training.run_length import planned_steps
from lightning_embed.training.schedule import lr_schedule


class LanguageModel(L.LightningModule):
    """Trains a `DecoderLM`; calling it on ids `(B, T)` gives logits `(B, T, V)`.

    Args:
        vocab_size: ids of the model; unset, those of the data's tokenizer.
        max_length: positions it is trained with; unset, the data's.
        optimizer: "muon" steps the blocks' matrices with Muon and the rest with AdamW.
        lr: peak learning rate of AdamW's parameters.
        muon_lr: peak learning rate of Muon's matrices.
        muon_dtype: number format of the products that make Muon's steps; unset, what the device is
            fastest with when the run begins.
        muon_turns: Muon steps one in so many matrices at a time, further; unset, as many as keep it
            at a tenth of a step: 1 but for wide matrices and small batches.
        weight_decay: of the blocks' matrices; embeddings and norms never decay.
        betas: AdamW's.
        schedule: "wsd" is warm-up, stable, linear decay; "cosine"; or "constant" after warm-up.
        warmup_steps: optimizer steps of warm-up; unset, 2 % of the schedule.
        schedule_steps: length of the schedule; unset, of the run.
        decay_fraction: part of the schedule that "wsd" decays over.
        final_fraction: learning rate at the end as a fraction of the peak.
        compile: compile the blocks; "auto" does where a compiler works, unless the run's data and
            limits say that it is over before compiling pays.
        freeze: parts that are not trained: embedding, head, blocks, blocks.0 and so on, norms.
        **network: settings of `DecoderLM`.

    Raises:
        UserError: a setting outside its limits.
    """

    def __init__(
        self,
        vocab_size: int | None = None,
        max_length: int | None = None,
        optimizer: Literal["muon", "adamw"] = "muon",
        lr: float = 3e-3,
        muon_lr: float = 0.02,
        muon_dtype: Literal["bfloat16", "float16", "float32"] | None = None,
        muon_turns: int | None = None,
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.95),
        schedule: Literal["wsd", "cosine", "constant"] = "wsd",
        warmup_steps: int | None = None,
        schedule_steps: int | None = None,
        decay_fraction: float = 0.5,
        final_fraction: float = 0.0,
        compile: bool | Literal["auto"] = "auto",
        freeze: str | list[str] | None = None,
        **network: Any,
    ) -> None:
        super().__init__()
        for name, value in (("lr", lr), ("muon_lr", muon_lr), ("weight_decay", weight_decay)):
            require_range(f"--model.{name}", value, at_least=0)
        for beta in betas:
            require_range("--model.betas", beta, at_least=0, below=1)
        require_range("--model.muon_turns", muon_turns, at_least=1, at_most=16)
        require_range("--model.warmup_steps", warmup_steps, at_least=0)
        require_range("--model.schedule_steps", schedule_steps, at_least=1)
        require_range("--model.decay_fraction", decay_fraction, at_least=0, at_most=1)
        require_range("--model.final_fraction", final_fraction, at_least=0, at_most=1)
        require_range("--model.max_length", max_length, at_least=2)
        DecoderLM.parameter_count(PAD_ID + 1, network)  # refuses impossible shapes now
        if freeze:  # and parts that are not there
            freeze_parts(DecoderLM.outline(PAD_ID + 1, network), freeze)
        self.save_hyperparameters()
        self.hparams.update(DecoderLM.settings(**network))  # defaults too: the whole shape
        self._network = network  # used by name below: jsonargparse finds the options that way
        self._as_begun = [name for name in AS_BEGUN if self.hparams[name] is None]
        self.model: DecoderLM | None = None
        self._initial: Mapping[str, Tensor] | None = None  # weights to begin with
        self.tokenizer_json: str | None = None  # the tokenizer's text travels in the checkpoint
        self.metrics = LanguageModelMetrics()
        self.evaluation: Evaluation | None = None  # what the last validation or test found
        self.named_sums: NamedSums | None = None  # of an evaluation under way, of a mixture
        self.window_sums: WindowSums | None = None  # of a test under way
        self.window_scores: WindowScores | None = None  # what the last test found of each window
        self.keeps_tokens = False  # `predict_step` gives each token's score, too
        self.step_loss = torch.zeros(())  # this rank's part of the global batch's loss, so far
        self.gradient_norm: Tensor | None = None  # of this step, set by `LossWatch` for clipping
        self.eager: str | None = "training has not begun"  # why nothing is compiled; None compiles
        if vocab_size is not None:
            self.configure_model()

    # Building ------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Build the network once the vocabulary is known; called again, does nothing."""
        if self.model is not None:
            return
        self.require_possible(getattr(trainer_of(self), "datamodule", None))
        self.model = DecoderLM(self.hparams["vocab_size"], padding_idx=PAD_ID, **self._network)
        if self._initial is not None:
            self.model.load_state_dict(self._initial)
            self._initial = None
        freeze_parts(self.model, self.hparams["freeze"])
        if self.device_mesh is not None:
            shard(self.model, self.device_mesh["data_parallel"])

    def parameter_count(self) -> int:
        """Of the network, which need not be built yet; its vocabulary must be known."""
        return DecoderLM.parameter_count(self.hparams["vocab_size"], self._network)

    def begin_with(self, weights: Mapping[str, Tensor]) -> None:
        """Have the network begin with these in place of random ones; by `DecoderLM`'s names."""
        self._initial = weights

    def require_possible(self, data: Any) -> None:
        """Take vocabulary and window length from the data module `data`; build and write nothing.

        Raises:
            UserError: the network's vocabulary is unknown or not that of the data.
        """
        h = self.hparams
        if data is not None:
            found = data.prepared.tokenizer.vocab_size
            if h["vocab_size"] not in (None, found):
                raise UserError(
                    f"--model.vocab_size is {h['vocab_size']}, but the tokenizer has {found} ids:"
                    " leave it out"
                )
            h["vocab_size"] = found
            if h["max_length"] is None:
                h["max_length"] = data.max_length
        elif h["vocab_size"] is None:
            raise UserError("the vocabulary is unknown without data; give vocab_size")

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
        super().apply(fn)  # calls `fn` on this module last, which may then write any parameter
        if self.model is not None:
            self.model.embedding.zero_padding_()
        return self

    def forward(self, ids: Tensor) -> Tensor:
        return self.network(ids)

    # Steps -----------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """This micro-batch's part of the global batch's mean loss.

        Lightning averages gradients over ranks and divides by the accumulation. Both are undone, so
        that gradients are those of one big batch, however it was split.
        """
        loss = self.network.loss(batch.ids, batch.targets, batch.segments, batch.repack)
        part = loss / max(1, batch.global_targets)
        begins = batch_idx % self.trainer.accumulate_grad_batches == 0
        self.step_loss = part.detach() if begins else self.step_loss + part.detach()
        divided_by = self.trainer.world_size * self.trainer.accumulate_grad_batches
        return part if divided_by == 1 else part * divided_by

    def global_step_loss(self) -> float:
        """Mean loss of the last global batch; every rank must call it, and waits for its device."""
        return float(self.trainer.strategy.reduce(self.step_loss, reduce_op="sum"))

    def _score(self, batch: Batch) -> Scores:
        return self.network.score(batch.ids, batch.targets, batch.segments, batch.repack)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        real, scores = batch.targets != IGNORE_INDEX, self._score(batch)
        for sums in (self.metrics, self.named_sums):
            if sums is not None:
                sums.update(scores, real, batch.group, batch.n_bytes)
        if self.window_sums is not None and batch.window is not None:
            self.window_sums.update(scores, real, batch.window, batch.n_bytes)

    test_step = validation_step

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """For each real row: its source's number, summed nats, targets and bytes; with
        `keeps_tokens` its window's number and each position's nats too."""
        scores = self._score(batch)
        targets = (batch.targets != IGNORE_INDEX).sum(dim=1)
        used = targets > 0
        found: dict[str, Any] = {
            "source": batch.group[used],
            "nll": scores.nll.sum(dim=1)[used],
            "targets": targets[used],
            "n_bytes": batch.n_bytes[used],
        }
        if self.keeps_tokens and batch.window is not None:
            found["window"] = batch.window[used].cpu()
            found["token_nll"] = scores.nll[used].float().cpu()
        return found

    def on_validation_epoch_start(self) -> None:
        self.metrics.reset()
        data = getattr(self.trainer, "datamodule", None)
        if data is not None and (report := data.prepared.report).named:
            self.named_sums = NamedSums(report.named, report.named_of_source).to(self.device)

    def on_test_epoch_start(self) -> None:
        self.on_validation_epoch_start()
        data = getattr(self.trainer, "datamodule", None)
        if data is not None:
            sums = WindowSums(len(data.eval_windows()), data.max_length)
            self.window_sums = sums.to(self.device)

    def on_validation_epoch_end(self) -> None:
        stage = "test" if self.trainer.testing else "val"
        self.evaluation = self.metrics.compute()  # already the same on all ranks
        if self.named_sums is not None:
            self.evaluation = self.evaluation._replace(by_name=self.named_sums.compute())
            self.named_sums = None
        values = {f"{stage}/{name}": value for name, value in self.evaluation.scalars.items()}
        self.log_dict(values, logger=False)  # its step would be one behind that of the weights
        if self.trainer.sanity_checking:
            return
        found, by_name = self.evaluation.scalars, self.evaluation.by_name
        told = values if self.trainer.testing else figures.of_validation(found)
        figures.log(self.trainer, told | figures.of_sources(by_name))

    def on_test_epoch_end(self) -> None:
        self.on_validation_epoch_end()
        if self.window_sums is not None:
            self.window_scores = self.window_sums.compute()
            self.window_sums = None

    # Optimization ----------------------------------------------------------------------------

    def configure_optimizers(self) -> OptimizerLRScheduler:
        if self.hparams["muon_dtype"] is None:
            self.hparams["muon_dtype"] = fastest_format(self.device.type).name
        data = getattr(trainer_of(self), "datamodule", None)
        if self.hparams["muon_turns"] is None and data is not None:
            self.hparams["muon_turns"] = self.turns(data.targets_per_step, data.max_length)
        # A gradient scaler's unscaling and found_inf are left to Lightning. That is safe with fused
        # AdamW, because MuonAdamW does not declare that it scales gradients itself.
        optimizer = MuonAdamW(self._groups(), fused=self.device.type in ("cpu", "cuda"))
        scheduler = LambdaLR(optimizer, self._schedule())
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def _schedule(self) -> Callable[[int], float]:
        """The learning rate at each step as a fraction of its peak. The schedule's length is fixed
        when a run begins: resuming it with more steps does not change it."""
        if self.hparams["schedule_steps"] is None:
            self.hparams["schedule_steps"] = planned_steps(self.trainer)
        return lr_schedule(self.hparams)

    def _groups(self) -> list[dict[str, Any]]:
        names = ("optimizer", "lr", "muon_lr", "muon_dtype", "muon_turns", "weight_decay", "betas")
        return parameter_groups(self.network, **{name: self.hparams[name] for name in names})

    def turns(self, targets: float, max_length: int) -> int:
        """Muon's turns for global batches of so many real targets, however they are split."""
        matrices = [p for g in self._groups() if g["name"] == "matrices" for p in g["params"]]
        return turns((p.shape for p in matrices), self._flops(targets, max_length))

    def _flops(self, targets: float, max_length: int) -> float:
        """Floating-point operations of training on so many real targets."""
        return self.network.training_flops(targets, targets * max_length / 2)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Lightning's, with the norm that `LossWatch` computed; and on a CPU, where reading the
        norm does not wait, gradients within the limit are not multiplied by 1. Each is a pass over
        all gradients, together 0.3 to 0.7 % of the default run's step."""
        norm, self.gradient_norm = self.gradient_norm, None
        limit = gradient_clip_val or 0.0
        if norm is None or limit <= 0 or gradient_clip_algorithm == "value":
            super().configure_gradient_clipping(
                optimizer, gradient_clip_val, gradient_clip_algorithm
            )
        elif isinstance(norm, DTensor) or norm.device.type != "cpu" or not norm + 1e-6 <= limit:
            clip_grads_with_norm_(self.parameters(), limit, norm)

    def on_train_start(self) -> None:
        """Decide on compiling. After a resume, put today's settings in the place of those restored
        with optimizer and scheduler, and clear moments that would move the padding row."""
        self.eager = self.trainer.strategy.broadcast(self.why_eager())  # the same on all ranks
        scheduler = self.lr_schedulers()
        if not isinstance(scheduler, LambdaLR):
            return
        embedding = self.network.embedding
        clear_padding_moments(scheduler.optimizer, embedding.weight, embedding.padding_idx or 0)
        take_settings(scheduler, self._groups(), self._schedule())

    # Compiling -------------------------------------------------------------------------------

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # A run's first step is always eager, so that a loss is on screen before the compiler has
        # finished. A resumed run compiles at once: a step's arithmetic depends on its number alone.
        if self.trainer.global_step >= 1 and self.eager is None:
            self.network.compile_parts()

    def why_eager(self) -> str | None:
        """None where training is compiled, else the reason in a few words; the same whenever it is
        called, so that a resumed run computes as the first one did."""
        wanted = self.hparams["compile"]
        reason = why_not_compile(self.device.type) if wanted else "model.compile is false"
        data = getattr(self.trainer, "datamodule", None)
        if reason is not None or wanted != "auto" or data is None:
            return reason
        steps = planned_steps(self.trainer)
        targets = steps * data.targets_per_step / self.trainer.world_size
        flops = self._flops(targets, data.max_length)
        if compiling_pays(flops, self.device, str(self.trainer.precision)):
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
        trainer = trainer_of(self)
        training = trainer is not None and trainer.state.fn == "fit"
        candidate = Candidate(
            Path("the checkpoint"), "train" if training else "evaluate", checkpoint
        )
        check(candidate, "content")
        self.tokenizer_json = checkpoint.get("tokenizer")
        begun = {"muon_turns": 1} | checkpoint["hyper_parameters"]  # once there were no turns
        for name in self._as_begun:
            self.hparams[name] = begun.get(name)
        self.configure_model()
        candidate.state_dict = self.state_dict()
        candidate.groups = {group["name"]: group["params"] for group in self._groups()}
        check(candidate, "tensors")

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:  # type: ignore[override]
        """Lightning's, for sharded checkpoints too and with checksums verified. Pickled code never
        runs, not from a URL either, whatever `weights_only` or the environment says."""
        kwargs["weights_only"] = True
        return super().load_from_checkpoint(opened(checkpoint_path), *args, **kwargs)
