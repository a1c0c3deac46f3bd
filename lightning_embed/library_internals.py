"""Every private name of a library that this package uses, each behind a function that says why.

A library may move any of them with its next release: `tests/test_library_internals.py` calls each
and finds private names used elsewhere; `pyproject.toml` bounds the versions. `OVERRIDES` are
private methods that a class of ours replaces, which can only be done in that class.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from datetime import timedelta
from io import BytesIO
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:  # torch alone must do for whoever imports this
    import lightning as L
    from jsonargparse import ArgumentParser
    from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
    from lightning.pytorch.loggers import TensorBoardLogger
    from lightning.pytorch.strategies import ModelParallelStrategy
    from tensorboard.compat.proto.summary_pb2 import Summary
    from torch import Tensor
    from torch.distributed.checkpoint import LoadPlanner, StorageReader
    from torch.distributed.checkpoint.planner import ReadItem
    from torch.distributed.tensor import Shard
    from torch.utils.tensorboard import SummaryWriter
    from torchmetrics import Metric

OVERRIDES = {
    "_apply": "torch.nn.Module: a metric's sums stay float64 when a model's dtype changes",
    "_load_from_state_dict": "torch.nn.Module: the padding row is zeroed after loading",
    "_parse_ckpt_path": "LightningCLI: prefers a checkpoint's settings to the user's, unsaid",
}

# Names that stand in files or state dicts
STEPPED = "_batches_that_stepped"  # a counter in Lightning's state of its training loop
COMPILED_PREFIX = "_orig_mod."  # before names of a module wrapped by `torch.compile(module)`
SHARDS_GLOBALS = (  # what torch's metadata of shards is made of, beside its own module's classes
    ("torch.serialization", "_get_layout"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
)

# Lightning ---------------------------------------------------------------------------------------


def is_accumulating(trainer: L.Trainer) -> bool:
    """Whether the batch just done ends in the middle of an optimizer step's accumulation; only
    there a checkpoint would lose gradients, and no public counter tells it in the last batch."""
    return bool(trainer.fit_loop._should_accumulate())


def trainer_of(module: L.LightningModule) -> L.Trainer | None:
    """None where there is no trainer yet; `module.trainer` raises then."""
    return module._trainer  # type: ignore[return-value]


def dump_checkpoint(trainer: L.Trainer) -> dict[str, Any]:
    """What `trainer.save_checkpoint` writes, without its barrier, where other processes may have
    ended."""
    return trainer._checkpoint_connector.dump_checkpoint(weights_only=False)


def leave_signals_alone(trainer: L.Trainer) -> None:
    """Have Lightning neither handle signals nor speak of them: `checkpointing/stop.py` does.

    Its handlers broadcast, which hangs where one process alone is told, and under SLURM queue the
    job again. Before each batch it asks rank 0 for a SIGTERM: a broadcast and, on a GPU, a wait.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def meeting_timeout(trainer: L.Trainer) -> timedelta | None:
    """How long a strategy's processes wait for each other, where it has such a limit."""
    return getattr(trainer.strategy, "_timeout", None)


def use_every_process_as_shard(strategy: ModelParallelStrategy) -> None:
    """ "auto" is one shard a host otherwise; the number of processes is unknown at construction."""
    if strategy._data_parallel_size == "auto":
        processes = strategy.num_nodes * strategy.num_processes
        strategy._data_parallel_size = processes // int(strategy._tensor_parallel_size)


def begin_new_event_file(logger: TensorBoardLogger, first_step: int | None) -> None:
    """After the writer's thread has ended on a full disk; entries from `first_step` on, of an
    earlier process, are taken back."""
    logger._experiment = None
    if first_step is not None:
        logger._kwargs["purge_step"] = first_step


def add_summary(writer: SummaryWriter, summary: Summary) -> None:
    """Write an entry that the writer has no method for; once it was closed, as it is when training
    ends, its methods open a file again, and nothing public does."""
    writer._get_file_writer().add_summary(summary)


def command_parser(cli: LightningCLI, command: str) -> LightningArgumentParser:
    """The parser of one command, which knows the defaults nobody asked for."""
    return cli._subcommand_parsers[command]


# jsonargparse, torchmetrics ----------------------------------------------------------------------


def option_names(parser: ArgumentParser) -> list[str]:
    """All options of a parser by their dotted names."""
    return [action.dest for action in parser._actions]


def take_whole_numbers(parser: LightningArgumentParser, *names: str) -> None:
    """Keep 1 apart from 1.0, which to Lightning are one batch and all batches: its options of the
    type `float | int` make a float of either, before anybody else sees it."""
    for action in parser._actions:
        if action.dest in names:
            action._typehint = int | float | None  # type: ignore[attr-defined]


def metric_defaults(metric: Metric) -> dict[str, Any]:
    """What `Metric.reset` sets states to."""
    return metric._defaults


# torch -------------------------------------------------------------------------------------------


def fast_bfloat16() -> str | None:
    """The processor's units for bfloat16 products by name, or None; torch has no public question
    for AVX512-BF16."""
    for feature, name in (
        ("_is_amx_tile_supported", "AMX"),
        ("_is_avx512_bf16_supported", "AVX512-BF16"),
    ):
        supported = getattr(torch.cpu, feature, None)
        if supported is not None and supported():
            return name
    return None


def sparse_parts(grad: Tensor) -> tuple[Tensor, Tensor]:
    """Indices and values of a sparse gradient as they are; the public names want it coalesced,
    which waits for a GPU."""
    return grad._indices(), grad._values()


def shard_extent(placement: Shard, length: int, shards: int, rank: int) -> tuple[int, int]:
    """How many of `length` rows rank `rank` holds, and the first of them."""
    size, offset = placement._local_shard_size_and_offset(length, shards, rank)
    return int(size), int(offset or 0)


def read_every_value(
    reader: StorageReader, load_bytes: Callable[[LoadPlanner, ReadItem, BytesIO], None]
) -> dict[str, Any]:
    """A distributed checkpoint as one dict in this process' memory; the public `load` fills only
    what it is handed, and writes files otherwise. `load_bytes` places what is no tensor."""
    from torch.distributed.checkpoint.default_planner import _EmptyStateDictLoadPlanner
    from torch.distributed.checkpoint.state_dict_loader import _load_state_dict

    class Planner(_EmptyStateDictLoadPlanner):
        def load_bytes(self, read_item: ReadItem, value: BytesIO) -> None:
            load_bytes(self, read_item, value)

    found: dict[str, Any] = {}
    _load_state_dict(found, reader, planner=Planner(), no_dist=True)
    return found


def cpp_compiler() -> str | None:
    """The C++ compiler that torch.compile would call, or None where it finds none."""
    from torch._inductor import cpp_builder, exc

    try:
        return cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        return None


def configure_compiler() -> None:
    """Settings of torch.compile without a public name, for the whole process.

    Dimensions that happen to be equal stay separate symbols: else a batch as long as the model is
    wide would have a graph of its own. A norm's epsilon stays a constant: as an input of the graph
    it would have everything traced twice. On x86 trust the CPU's feature flags: trying each vector
    instruction set in a program of its own takes 6 s.
    """
    import torch._dynamo  # takes seconds to import
    import torch._inductor.config
    import torch.fx.experimental._config

    torch.fx.experimental._config.use_duck_shape = False
    torch._dynamo.config.specialize_float = True
    kernels = torch._inductor.config.cpp
    if kernels.vec_isa_ok is None and platform.machine() in ("x86_64", "AMD64"):
        kernels.vec_isa_ok = True


def graphs_compiled(dynamo_utils: ModuleType) -> int:
    """Graphs that torch.compile has made in this process, by its own counters."""
    return int(dynamo_utils.counters["stats"]["unique_graphs"])


# One call for a list of tensors; documented, though named as private.
foreach_lerp, foreach_lerp_ = torch._foreach_lerp, torch._foreach_lerp_
foreach_mul_, foreach_add_ = torch._foreach_mul_, torch._foreach_add_

# Python ------------------------------------------------------------------------------------------


def end_at_once(status: int) -> None:
    """End the process from any thread, though the main one is held up; only the name is private."""
    os._exit(status)
