"""Trainer settings that are refused, where Lightning would do something else than was asked."""

from datetime import timedelta
from typing import Any

from lightning_embed.errors import UserError, require_range


def refuse_unsupported(trainer: Any) -> None:
    """Raises UserError, one line, for settings of a fit that Lightning would meet with a traceback
    or with something else than was asked for."""
    require_range("--trainer.gradient_clip_val", trainer.gradient_clip_val, at_least=0)
    require_range("--trainer.log_every_n_steps", trainer.log_every_n_steps, at_least=0)
    require_range("--trainer.num_sanity_val_steps", trainer.num_sanity_val_steps, at_least=-1)
    require_range("--trainer.check_val_every_n_epoch", trainer.check_val_every_n_epoch, at_least=0)
    require_range("--trainer.accumulate_grad_batches", trainer.accumulate_grad_batches, at_least=1)
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
