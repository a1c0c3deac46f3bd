"""Settings nobody gave, chosen by what the machine has; and those that cannot be, refused."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from lightning_embed.arithmetic import fastest_format, is_half
from lightning_embed.commands import no_effect
from lightning_embed.commands.unsupported import (
    refuse_pieces,
    refuse_shortcuts,
    refuse_unsupported,
    takes_precision,
)
from lightning_embed.console import say
from lightning_embed.errors import require_range
from lightning_embed.hardware import keep_freed_memory, settle_threads


def settle(config: Any, default: Callable[[str], Any], trains: bool) -> None:
    """Choose accelerator, threads and determinism, in place, before anything is built.

    Args:
        config: all settings of a command of Lightning's.
        default: of an option by its dotted name.
        trains: the command is `fit`.

    Raises:
        UserError: a setting of the trainer that cannot serve here.
    """
    rows = (*no_effect.DATA, *(no_effect.RUN if trains else ()))
    no_effect.note_without_effect(rows, config, default)
    trainer = config.trainer
    if trainer.accelerator == "auto":  # on macOS MPS must be asked for
        trainer.accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    refuse_pieces(trainer)
    if trainer.accelerator == "cpu":
        settle_threads()
        keep_freed_memory()
    if trains:
        refuse_unsupported(trainer)
        require_range("--early_stopping.patience", config.early_stopping.patience, at_least=0)
    else:
        refuse_shortcuts(trainer)
        config.data.final_eval_tokens = None  # of `fit`: who asks for an evaluation wants all of it
    if trainer.deterministic is None and trainer.accelerator == "cpu":
        trainer.deterministic = True
    # Else determinism writes NaN over all new memory: help for debugging, 1 % of a small step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def choose_formats(config: Any, begun: Mapping[str, Any]) -> str:
    """Choose the number formats of all products, in place: when a run begins by what the device is
    fastest with, when it goes on as it began.

    Args:
        config: all settings of a command of Lightning's.
        begun: settings of the trainer and the model that a run which goes on began with.

    Returns:
        Why this precision is taken, for the screen.
    """
    trainer, model = config.trainer, config.model
    fastest = fastest_format(trainer.accelerator)
    reason = "as asked"
    if trainer.precision is None and not takes_precision(trainer.plugins):
        trainer.precision, reason = fastest.precision, fastest.reason
        if begun.get("precision"):
            trainer.precision, reason = begun["precision"], "as the run began"
    if trainer.accelerator == "cpu" and str(trainer.precision) in ("16", "16-mixed"):
        trainer.precision, reason = fastest.precision, f"16-mixed is for GPUs, {fastest.reason}"
    if model.muon_dtype is None and model.optimizer == "muon":
        model.muon_dtype = begun.get("muon_dtype") or fastest.name
    if fastest.dtype is torch.float32:
        if is_half(str(trainer.precision)):
            _note_slow("--trainer.precision", trainer.precision, "32-true", fastest.reason)
        if model.optimizer == "muon" and model.muon_dtype != fastest.name:
            _note_slow("--model.muon_dtype", model.muon_dtype, fastest.name, fastest.reason)
    return reason


def _note_slow(flag: str, given: str, better: str, why: str) -> None:
    say("note", f"{flag} {given} is slow on this machine, {why}: {better} is faster")
