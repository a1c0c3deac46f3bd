"""Trainer settings that are refused: Lightning would do something else than was asked, or would say
what is missing with a traceback, or only after the text is prepared."""

from datetime import timedelta
from importlib import import_module
from typing import Any

from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.plugins import (
    CheckpointIO,
    DeepSpeedPrecision,
    FSDPPrecision,
    HalfPrecision,
    Precision,
)
from lightning.pytorch.strategies import (
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    StrategyRegistry,
)

from lightning_embed.checkpointing.fsdp2 import FSDP2Strategy
from lightning_embed.commands.wording import nearest
from lightning_embed.errors import UserError, require_range

SHARDED = (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy)


def several(given: Any) -> list[Any]:
    """A setting that takes nothing, one or a list, as a list."""
    if given is None:
        return []
    return list(given) if isinstance(given, list | tuple) else [given]


def refuse_pieces(trainer: Any) -> None:
    """Raises UserError, one line, for an accelerator, precision, strategy, profiler or plugin that
    cannot serve here.

    Args:
        trainer: its settings, with a choice made where the accelerator was "auto".
    """
    _refuse_accelerator(trainer.accelerator, trainer.devices)
    _refuse_precision("--trainer.precision", str(trainer.precision))
    if isinstance(trainer.strategy, str):
        _refuse_strategy_name(trainer.strategy)
    for kind, settings in _classes(trainer.strategy):
        _refuse_strategy(kind.__name__, kind, settings)
    profilers = [kind.__name__ for kind, _ in _classes(trainer.profiler)]
    if trainer.profiler == "xla" or "XLAProfiler" in profilers:
        raise UserError("--trainer.profiler xla is not supported: it needs a TPU; take pytorch")
    for kind, settings in _classes(trainer.plugins):
        option = f"--trainer.plugins {kind.__name__}"
        if issubclass(kind, CheckpointIO):
            raise UserError(
                f"{option} is not supported: the built-in one writes checkpoints, and never a part"
            )
        if issubclass(kind, FSDPPrecision | DeepSpeedPrecision):
            raise UserError(f"{option} is not supported: take --config fsdp, --trainer.precision")
        if issubclass(kind, Precision) and trainer.precision is not None:
            raise UserError(f"give --trainer.precision or {option}, not both")
        if issubclass(kind, HalfPrecision):
            _refuse_precision(option, settings.get("precision", "16-true"))


def takes_precision(plugins: Any) -> bool:
    """Whether one of the plugins is a precision."""
    return any(issubclass(kind, Precision) for kind, _ in _classes(plugins))


def _classes(given: Any) -> list[tuple[type, dict[str, Any]]]:
    """The classes that a setting names, not yet made, with their arguments."""
    found = []
    for each in several(given):
        if hasattr(each, "class_path"):
            module, _, name = each.class_path.rpartition(".")
            settings = vars(each.get("init_args") or type(each)())
            found.append((getattr(import_module(module), name), settings))
    return found


def _refuse_accelerator(name: Any, devices: Any) -> None:
    known = {"gpu", *AcceleratorRegistry.available_accelerators()} - {"tpu"}
    if not isinstance(name, str):
        name = name.class_path.rpartition(".")[2]
    if name not in known:
        names = ", ".join(["auto", *sorted(known)])
        raise UserError(f"--trainer.accelerator {name} is not supported: give {names}")
    kinds = ("cuda", "mps") if name == "gpu" else (name,)
    if not any(AcceleratorRegistry[kind]["accelerator"].is_available() for kind in kinds):
        raise UserError(f"--trainer.accelerator {name}: this machine has none; give cpu or auto")
    if name == "cpu" and devices != "auto" and not (str(devices).isdecimal() and int(devices) > 0):
        raise UserError(
            f"--trainer.devices {devices}: on a CPU give the number of processes, at least 1"
        )


def _refuse_precision(option: str, precision: str) -> None:
    if precision == "16-true":
        raise UserError(
            f"{option} 16-true is refused: AdamW's epsilon is 0 in float16 and turns"
            " the padding row into NaN; take 16-mixed, bf16-mixed or bf16-true"
        )


def _refuse_strategy_name(name: str) -> None:
    known = StrategyRegistry.available_strategies()
    if name.lower() in ("auto", *known):
        if name.lower() != "auto":
            entry = StrategyRegistry[name.lower()]
            _refuse_strategy(name, entry["strategy"], entry["init_params"])
        return
    if name.endswith("Strategy"):
        raise UserError(
            f"--trainer.strategy {name}: a class is given as --trainer.strategy.class_path {name}"
        )
    raise UserError(
        f"--trainer.strategy {name} is not known{nearest(name, known)}: give auto, ddp, or"
        " --config fsdp"
    )


def _refuse_strategy(name: str, kind: type, settings: dict[str, Any]) -> None:
    if issubclass(kind, SHARDED) and not issubclass(kind, FSDP2Strategy):
        raise UserError(f"--trainer.strategy {name} is not supported: take --config fsdp")
    if settings.get("start_method", "popen") != "popen":
        raise UserError(
            f"--trainer.strategy {name} is not supported: take ddp, whose processes are commands of"
            " their own"
        )
    if "XLA" in kind.__name__ or "TPU" in kind.__name__:
        raise UserError(f"--trainer.strategy {name} is not supported: it needs a TPU; take auto")


def refuse_unsupported(trainer: Any) -> None:
    """Raises UserError, one line, for settings of a fit that Lightning would meet with a traceback
    or with something else than was asked for."""
    require_range("--trainer.gradient_clip_val", trainer.gradient_clip_val, at_least=0)
    require_range("--trainer.log_every_n_steps", trainer.log_every_n_steps, at_least=1)
    require_range("--trainer.num_sanity_val_steps", trainer.num_sanity_val_steps, at_least=-1)
    require_range("--trainer.check_val_every_n_epoch", trainer.check_val_every_n_epoch, at_least=0)
    require_range("--trainer.accumulate_grad_batches", trainer.accumulate_grad_batches, at_least=1)
    interval = trainer.val_check_interval
    nothing = [n for n in ("max_steps", "max_epochs", "limit_train_batches") if trainer[n] == 0]
    for refused, why in (
        (nothing, f"--trainer.{nothing and nothing[0]} 0 trains nothing"),
        (
            trainer.max_epochs == -1 and trainer.max_steps == -1,
            "--trainer.max_epochs -1 leaves the learning rate's schedule without an end: give"
            " --trainer.max_steps; --trainer.max_time may end the run before",
        ),
        (
            interval == 0 or trainer.check_val_every_n_epoch == 0,
            "--trainer.val_check_interval and --trainer.check_val_every_n_epoch must not be 0;"
            " --trainer.limit_val_batches 0 trains without validation",
        ),
        (
            isinstance(interval, str | dict | timedelta),
            f"--trainer.val_check_interval {interval} is a time: give optimizer steps or a share of"
            " an epoch",
        ),
        (
            trainer.fast_dev_run,
            "--trainer.fast_dev_run is not supported: take --trainer.max_steps 1"
            " --trainer.limit_val_batches 1",
        ),
        (
            trainer.overfit_batches,
            "--trainer.overfit_batches is not supported: give a small text with --data.files",
        ),
        (
            trainer.enable_checkpointing is False,
            "--trainer.enable_checkpointing false is not supported: --checkpoints.every_n_steps 0"
            " --checkpoints.every_n_minutes 0 saves the best and the last alone",
        ),
        (
            trainer.barebones,
            "--trainer.barebones is not supported: it trains without checkpoints and curves;"
            " --trainer.logger false leaves out the curves",
        ),
        (
            trainer.model_registry is not None,
            "--trainer.model_registry is not supported: checkpoints stay in the run's folder",
        ),
        (
            trainer.use_distributed_sampler,
            "--trainer.use_distributed_sampler is not supported: the plan of batches deals out each"
            " process' rows itself",
        ),
        (
            trainer.reload_dataloaders_every_n_epochs != 0,
            "--trainer.reload_dataloaders_every_n_epochs is not supported: the plan of batches is"
            " made once for the whole run",
        ),
        (
            trainer.inference_mode,
            "--trainer.inference_mode is not supported: tensors of a validation in it cannot enter"
            " the graph of training",
        ),
    ):
        if refused:
            raise UserError(why)


def refuse_shortcuts(trainer: Any) -> None:
    """Raises UserError, one line, for settings with which an evaluation would score a part of the
    text without saying so."""
    for name in ("fast_dev_run", "overfit_batches"):
        if trainer[name]:
            raise UserError(
                f"--trainer.{name} is not for evaluation: leave it out for all of the text, or"
                " limit the batches with --trainer.limit_val_batches (limit_test_batches,"
                " limit_predict_batches)"
            )
