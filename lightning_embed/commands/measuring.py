"""What a run's steps, evaluations, samples and checkpoints cost on this machine, in seconds."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import repeat
from typing import Any, NamedTuple

import torch

from lightning_embed.commands.splitting import row_too_large
from lightning_embed.data.batch import Batch
from lightning_embed.data.datamodule import TextDataModule
from lightning_embed.errors import UserError, one_line
from lightning_embed.hardware import free_memory
from lightning_embed.inference.sampling import Sampling
from lightning_embed.inference.texts import stream_texts
from lightning_embed.model.decoder import DecoderLM
from lightning_embed.training.memory import training_memory
from lightning_embed.training.rehearsal import Rehearsal, full_rows
from lightning_embed.training.sizing import Cost, Shape, work

EACH_STEP = 0.0012  # of Lightning's loop and the callbacks, ...
OF_A_STEP = 0.01  # ... and by how much they slow the step itself


def process_count(trainer: Any) -> int:
    """Processes that train on this host.

    Args:
        trainer: its settings; there is no Trainer yet to ask.
    """
    devices = trainer.devices
    if isinstance(devices, str) and devices.lstrip("-").isdigit():
        devices = int(devices)
    if isinstance(devices, str | list) and devices != "auto":
        return len(devices if isinstance(devices, list) else devices.split(","))
    if isinstance(devices, int) and devices >= 0:
        return max(1, devices)
    return max(1, torch.cuda.device_count()) if trainer.accelerator in ("cuda", "gpu") else 1


class Beside(NamedTuple):
    """Seconds of what a run does beside its steps."""

    batch: float  # an evaluation's batch
    sample: float  # the samples of a validation
    save: float  # a checkpoint


class Measuring:
    """Measures for one run, by rehearsals; `without_trace` is to be around all of it.

    Args:
        config: all settings of `fit`.
    """

    def __init__(self, config: Any) -> None:
        self.config, trainer = config, config.trainer
        self.world = process_count(trainer)
        self.parts = int(trainer.accumulate_grad_batches)
        self.precision = str(trainer.precision or "32-true")
        self.device = torch.device("cuda" if trainer.accelerator in ("cuda", "gpu") else "cpu")
        self.threads = torch.get_num_threads()
        if self.device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
            self.threads = max(1, self.threads // self.world)
        self.data: TextDataModule  # set once there are tokens
        self.until = 0.0  # when measuring shapes is to end, on `time.perf_counter`
        self.why_none: UserError | None = None  # the last shape that cannot run here
        self._last: tuple[float, int] | None = None  # shape measured: seconds, and its work

    def settings(self, shape: Shape, dropout: float = 0.0) -> dict[str, Any]:
        """Of `LanguageModel`."""
        given = dict(self.config.model.as_dict())
        known = {"vocab_size": self.data.prepared.tokenizer.vocab_size, "dropout": dropout}
        return given | {"max_length": self.data.max_length} | known | shape._asdict()

    def cost(self, shape: Shape, positions: int) -> Cost | None:
        """Seconds of a step of this shape, from two batch sizes around `positions`."""
        vocabulary = self.data.prepared.tokenizer.vocab_size
        if self._last is not None:
            took, before = self._last
            if 5 * took * work(shape, vocabulary) / before > self.until - time.perf_counter():
                return None  # measuring alone would take too long
        settings, began = self.settings(shape), time.perf_counter()
        network = {k: v for k, v in settings.items() if k in DecoderLM.settings()}
        try:
            width = self.data.max_length
            self._require_memory(network, settings["vocab_size"], settings["optimizer"])
            rehearsal = Rehearsal(settings, self.precision, self.device, positions)
            rows = max(1, positions // width // self.world // self.parts)
            fewer, more = max(1, rows // 2), max(2, rows)
            at_least = min(0.3, (self.until - began) / 15)
            seconds = []
            for n_rows in (fewer, more):
                batches = repeat(full_rows(n_rows, width, settings["vocab_size"]))
                rehearsal.seconds(rehearsal.train, batches, 0.0, fewest=1)
                seconds.append(rehearsal.seconds(rehearsal.train, batches, at_least, fewest=2))
        except (UserError, torch.OutOfMemoryError) as error:
            self.why_none = UserError(one_line(error))
            return None
        self._last = seconds[1], work(shape, vocabulary)
        slope = (seconds[1] - seconds[0]) / (more - fewer) / width
        slope = max(slope, 0.3 * seconds[1] / (more * width))  # where noise makes them too alike
        fixed = max(0.0, seconds[1] - slope * more * width)
        return Cost(
            self.parts * fixed + EACH_STEP + self._meeting(rehearsal),
            slope / self.world * (1 + OF_A_STEP),
        )

    def _require_memory(self, network: dict[str, Any], vocab_size: int, optimizer: Any) -> None:
        """Refuse a shape of which not even a single row fits."""
        free = free_memory(self.device, processes=self.world)
        need = training_memory(
            network,
            vocab_size,
            1,
            self.data.max_length,
            optimizer=optimizer,
            precision=self.precision,
            on_gpu=self.device.type == "cuda",
            processes=self.world,
        ).total
        if free is not None and need > free:
            raise row_too_large(self.data.max_length, need, free, network)

    def _meeting(self, rehearsal: Rehearsal) -> float:
        """Seconds in which processes exchange a step's gradients, roughly: gigabytes a second."""
        if self.world == 1:
            return 0.0
        size = 4 * sum(p.numel() for p in rehearsal.network.parameters())
        return size / (1e9 if self.device.type == "cpu" else 5e10)

    def rehearsal(self, shape: Shape, dropout: float, batch: int) -> Rehearsal:
        """The run's own, on batches of so many positions."""
        self.data.settings = replace(self.data.settings, tokens=batch)
        self.data.__dict__.pop("batches_per_epoch", None)  # counted for another batch
        targets = self.data.targets_per_step
        return Rehearsal(self.settings(shape, dropout), self.precision, self.device, targets)

    def step(self, rehearsal: Rehearsal, compiled: bool, at_least: float) -> tuple[float, float]:
        """Seconds of a step over the run's own batches, and of the first ones, which compile."""
        batches = self._batches()
        began = time.perf_counter()
        rehearsal.warm_up(batches, compiled)
        first = time.perf_counter() - began
        micro = rehearsal.seconds(rehearsal.train, batches, at_least, fewest=5)
        return micro * self.parts * (1 + OF_A_STEP) + EACH_STEP + self._meeting(rehearsal), first

    def _batches(self) -> Iterator[Batch]:
        """The run's own batches, as its first process has them."""
        loader = self.data.train_dataloader()
        loader.world_size, loader.accumulate = self.world, self.parts
        epoch = 0
        while True:
            loader.set_epoch(epoch)
            yield from loader
            epoch += 1

    def beside(self, rehearsal: Rehearsal, at_least: float) -> Beside:
        """Measure what is done beside steps, in batches of the size that was last measured."""
        batches = self.data.eval_dataloader()
        rehearsal.module.eval()
        rehearsal.seconds(rehearsal.score, batches, 0.0, fewest=1)
        batch = rehearsal.seconds(rehearsal.score, batches, at_least, fewest=2)
        samples = self.config.samples
        began = time.perf_counter()
        if samples.max_new_tokens:
            pieces = stream_texts(
                rehearsal.network,
                self.data.prepared.tokenizer,
                samples.prompts or [""],
                Sampling(temperature=samples.temperature),
                max_new_tokens=samples.max_new_tokens,
                max_length=self.data.max_length,
            )
            list(pieces)
        sample = time.perf_counter() - began
        rehearsal.module.train()
        size = 12 * sum(p.numel() for p in rehearsal.network.parameters())
        return Beside(batch, sample, 0.03 + size / 3e8)
