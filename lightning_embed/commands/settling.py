"""Settings nobody gave, chosen by what the machine has; and those that cannot be, refused."""

from collections.abc import Callable
from typing import Any

import torch

from lightning_embed.commands import no_effect
from lightning_embed.commands.unsupported import (
    refuse_pieces,
    refuse_shortcuts,
    refuse_unsupported,
    takes_precision,
)
from lightning_embed.errors import require_range
from lightning_embed.hardware import keep_freed_memory, settle_threads, suggested_precision


def settle(config: Any, default: Callable[[str], Any], trains: bool) -> str:
    """Choose accelerator, precision, threads and determinism, in place, before anything is built.

    Args:
        config: all settings of a command of Lightning's.
        default: of an option by its dotted name.
        trains: the command is `fit`.

    Returns:
        Why this precision is taken, for the screen.

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
    reason = "as asked"
    if trainer.precision is None and not takes_precision(trainer.plugins):
        trainer.precision, reason = suggested_precision(trainer.accelerator)
    if trainer.accelerator == "cpu" and str(trainer.precision) in ("16", "16-mixed"):
        trainer.precision, reason = "bf16-mixed", "16-mixed is for GPUs"
    if trains:
        refuse_unsupported(trainer)
        require_range("--early_stopping.patience", config.early_stopping.patience, at_least=0)
    else:
        refuse_shortcuts(trainer)
    if trainer.deterministic is None and trainer.accelerator == "cpu":
        trainer.deterministic = True
    # Else determinism writes NaN over all new memory: help for debugging, 1 % of a small step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return reason
