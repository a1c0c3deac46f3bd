"""Settings of then and now: what a checkpoint fixes, what may change, what a person is told of it.

Knows: which settings decide a network's shape, which of the trainer's change a run. Leaves to
others: data (`datamodule.py`), applying a change (`lightning_module.py`, Lightning).
"""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning_embed.console import say
from lightning_embed.errors import UserError
from lightning_embed.model.decoder import DecoderLM

# Hyperparameters that decide a network's shape: a checkpoint fits no other.
SHAPE = DecoderLM.settings().keys() - set(DecoderLM.FREE)
FROM_DATA = ("vocab_size", "max_length")
AS_BEGUN = ("schedule_steps",)  # unset means what the run began with
TRAINER = (
    "strategy",
    "devices",
    "num_nodes",
    "accumulate_grad_batches",
    "precision",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "max_steps",
    "max_epochs",
    "val_check_interval",
    "check_val_every_n_epoch",
    "limit_train_batches",
    "limit_val_batches",
)
NEEDED = {
    "loops": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "callbacks": dict,
    "global_step": int,
    "epoch": int,
    "TextDataModule": dict,
}
NEEDED_OF_DATA = {
    "step": int,
    "epoch": int,
    "consumed": int,
    "data": str,
    "tokenizer": str,
    "asked": dict,
    "plan": dict,
}


def refuse_impossible(trainer: Any) -> None:
    """Raises UserError, one line, for settings of a fit that Lightning would meet with a traceback
    or with something else than was asked for."""
    interval, strategy = trainer.val_check_interval, trainer.strategy
    nothing = [n for n in ("max_steps", "max_epochs", "limit_train_batches") if trainer[n] == 0]
    for refused, why in (
        (nothing, f"--trainer.{nothing and nothing[0]} 0 trains nothing"),
        (
            trainer.max_epochs == -1 and trainer.max_steps == -1,
            "--trainer.max_epochs -1 leaves the learning rate's schedule without an end: give"
            " --trainer.max_steps; --trainer.max_time may end the run before",
        ),
        (
            trainer.accumulate_grad_batches < 1,
            "--trainer.accumulate_grad_batches must be at least 1, not"
            f" {trainer.accumulate_grad_batches}",
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
            isinstance(strategy, str) and strategy.startswith(("fsdp", "deepspeed")),
            f"--trainer.strategy {strategy} is not supported: take --config configs/fsdp.yaml",
        ),
    ):
        if refused:
            raise UserError(why)


def settle_model(
    asked: Any,
    saved: dict[str, Any],
    *,
    defaults: Callable[[str], Any],
    checkpoint: Path,
    training: bool,
) -> None:
    """Compare `--model.*` with a checkpoint's: nothing in one overrides the other without a word.

    Args:
        asked: the command's model settings; a shape nobody asked for is taken from the checkpoint
            unless the command trains.
        saved: hyperparameters of the checkpoint.
        defaults: a setting's default.
        checkpoint: its path, for messages.
        training: the command goes on training.

    Raises:
        UserError: the shapes differ.
    """
    for key, then in saved.items():
        now = asked.get(key)
        if key in FROM_DATA or (key in AS_BEGUN and now is None) or _listed(now) == _listed(then):
            continue
        if key in SHAPE and not training and now == defaults(key):
            asked[key] = then
        elif key in SHAPE:
            raise UserError(
                f"--model.{key} is {now}, but {checkpoint} was trained with {then}: a checkpoint"
                " fits no other shape; leave it as it was or start a new run"
            )
        elif training:
            say("changed", f"model.{key} {then} -> {now}, applied from here on")


def require_complete(saved: dict[str, Any], checkpoint: Path) -> None:
    """Raises UserError: weights alone are not enough to go on training."""
    data = saved.get("TextDataModule")
    missing = [key for key, kind in NEEDED.items() if not isinstance(saved.get(key), kind)]
    if isinstance(data, dict):
        missing += [k for k, kind in NEEDED_OF_DATA.items() if not isinstance(data.get(k), kind)]
    if "loops" not in missing and "fit_loop" not in saved["loops"]:
        missing.append("fit_loop")
    if missing:
        raise UserError(
            f"{checkpoint} has no {', '.join(missing)}: it can be evaluated, but no run can"
            " go on from it"
        )


def trainer_settings(trainer: Any) -> dict[str, Any]:
    """What of the trainer's settings changes a run's figures or its division, as plain values."""
    return {key: _plain(trainer.get(key)) for key in TRAINER}


def tell_changes(then: dict[str, Any], now: dict[str, Any]) -> None:
    """Say which of the trainer's settings differ; Lightning takes today's."""
    for key, value in now.items():
        if key in then and then[key] != value:
            say("changed", f"trainer.{key} {then[key]} -> {value}, applied from here on")


def _listed(value: Any) -> Any:
    """Tuples come back from YAML and checkpoints as lists."""
    return list(value) if isinstance(value, tuple) else value


def _plain(value: Any) -> Any:
    """As a checkpoint can keep it and a line can show it: a class by its name."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    path = getattr(value, "class_path", None)
    return path.rsplit(".", 1)[-1] if isinstance(path, str) else str(value)
