"""A step that memory is too small for is split into more micro-batches, which trains the same.

Before a run begins by an estimate; where a GPU's memory is used up in the first steps all the same,
by beginning anew.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import lightning as L
from lightning.pytorch.strategies import ModelParallelStrategy

from lightning_embed.checkpointing.save import FIRST_STEPS
from lightning_embed.console import say
from lightning_embed.data.datamodule import TextDataModule
from lightning_embed.errors import UserError
from lightning_embed.hardware import free_memory
from lightning_embed.model.compiling import why_not_compile
from lightning_embed.model.decoder import DecoderLM
from lightning_embed.training.lightning_module import LanguageModel
from lightning_embed.training.memory import (
    TrainingMemory,
    largest,
    next_split,
    split_that_fits,
    training_memory,
)

FLAG = "--trainer.accumulate_grad_batches"


class BeginAnew(Exception):
    """The run's first steps had too little memory.

    Attributes:
        accumulate: micro-batches a step to begin anew with.
    """

    def __init__(self, accumulate: int) -> None:
        self.accumulate = accumulate


def memory_needed(trainer: L.Trainer, model: LanguageModel) -> Callable[[int, int], TrainingMemory]:
    """What a process needs for a micro-batch, by its rows and their width."""
    h, device = model.hparams, trainer.strategy.root_device.type
    # Whether "auto" compiles on a CPU is not known yet: eager takes more.
    wanted = h["compile"] is True or (h["compile"] == "auto" and device == "cuda")
    return partial(
        training_memory,
        {name: h[name] for name in DecoderLM.settings()},
        h["vocab_size"],
        optimizer=h["optimizer"],
        precision=str(trainer.precision),
        compiled=wanted and why_not_compile(device) is None,
        on_gpu=device == "cuda",
        processes=trainer.world_size,
        sharded=isinstance(trainer.strategy, ModelParallelStrategy),
    )


def settled_accumulation(trainer: L.Trainer, model: LanguageModel, data: TextDataModule) -> int:
    """Micro-batches a step: as asked for, or as many more as memory requires, which is said.

    Raises:
        UserError: one row is too much; with what it needs, what is free, and what to lower.
    """
    asked, processes = trainer.accumulate_grad_batches, trainer.world_size
    device = trainer.strategy.root_device
    free = free_memory(device, processes=trainer.num_devices)
    if free is None:
        return asked
    need = memory_needed(trainer, model)
    whole = largest(need, data.settings, asked * processes).total
    found = split_that_fits(need, free, data.settings, asked, processes)
    if found is None:
        width = data.settings.widths[-1]
        least = largest(need, data.settings, processes * data.settings.rows_at(width)).total
        raise row_too_large(width, least, free, model.hparams)
    if found != asked:
        say(
            "memory",
            f"a step needs {_size(whole)}, {_size(free)} are free: split into {found} micro-batches"
            f" ({FLAG} {found}, not {asked}), which trains the same",
        )
    return found


def row_too_large(width: int, need: float, free: float, settings: Mapping[str, Any]) -> UserError:
    """A step can be split into rows, a row cannot.

    Args:
        width: of the row.
        need, free: bytes.
        settings: of the model.
    """
    return UserError(
        f"a single row of {width} tokens needs {_size(need)} to train, {_size(free)} are free:"
        f" {_ways_out(settings)}"
    )


def used_up(
    trainer: L.Trainer, model: LanguageModel, data: TextDataModule, first_step: int
) -> BeginAnew | UserError:
    """What follows when a GPU's memory is used up while training.

    Args:
        first_step: steps done before, by the run that is resumed.
    """
    step = trainer.global_step + 1
    more = next_split(trainer.accumulate_grad_batches, data.settings, trainer.world_size)
    if more is None:
        return UserError(
            f"step {step}: the GPU's memory does not hold a single row of"
            f" {data.settings.widths[-1]} tokens: {_ways_out(model.hparams)}"
        )
    early = trainer.global_step < first_step + FIRST_STEPS  # beginning anew loses nothing
    if not early or trainer.world_size > 1:  # other processes wait somewhere in the step
        return UserError(
            f"step {step}: the GPU's memory is used up; {FLAG} {more} splits a step into"
            " smaller parts and trains the same"
        )
    say(
        "memory",
        f"used up in step {step}: the run begins anew with {more} micro-batches a step"
        f" ({FLAG} {more}), which trains the same",
    )
    return BeginAnew(more)


def _size(n_bytes: float) -> str:
    if n_bytes < 1e9:
        return f"{n_bytes / 1e6:.0f} MB"
    return f"{n_bytes / 1e9:,.1f} GB" if n_bytes < 1e11 else f"{n_bytes / 1e9:,.0f} GB"


def _ways_out(settings: Mapping[str, Any]) -> str:
    ways = "lower --model.n_layers, --model.d_model or --data.max_length"
    if not settings["checkpoint_activations"]:
        ways += ", or give --model.checkpoint_activations true"
    return ways
