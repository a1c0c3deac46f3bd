"""Settings of then and now: what a checkpoint fixes, what may change, what a person is told of it.

Knows: which settings decide a network's shape, which of the trainer's change a run. Leaves to
others: data (`datamodule.py`), applying a change (`lightning_module.py`, Lightning).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_embed.console import say

# Hyperparameters that decide a network's shape: a checkpoint fits no other.
SHAPE = (
    "vocab_size",
    "d_model",
    "n_layers",
    "n_heads",
    "n_kv_heads",
    "d_ff",
    "tied",
    "qk_norm",
    "scale_embedding",
    "rope_base",
)
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
        ValueError: the shapes differ.
    """
    for key, then in saved.items():
        now = asked.get(key)
        if key in FROM_DATA or (key in AS_BEGUN and now is None) or _listed(now) == _listed(then):
            continue
        if key in SHAPE and not training and now == defaults(key):
            asked[key] = then
        elif key in SHAPE:
            raise ValueError(
                f"--model.{key} is {now}, but {checkpoint} was trained with {then}: a checkpoint"
                " fits no other shape; leave it as it was or start a new run"
            )
        elif training:
            say("changed", f"model.{key} {then} -> {now}, applied from here on")


def require_complete(saved: dict[str, Any], checkpoint: Path) -> None:
    """Raises ValueError: weights alone are not enough to go on training."""
    data = saved.get("TextDataModule")
    missing = [key for key, kind in NEEDED.items() if not isinstance(saved.get(key), kind)]
    if isinstance(data, dict):
        missing += [k for k, kind in NEEDED_OF_DATA.items() if not isinstance(data.get(k), kind)]
    if "loops" not in missing and "fit_loop" not in saved["loops"]:
        missing.append("fit_loop")
    if missing:
        raise ValueError(
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
