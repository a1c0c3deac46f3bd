"""`fit --minutes N`: one dial that sizes a run for this text on this machine, so that it ends N
minutes after the command was given.

`dial.py` measures and chooses. Here the choice is written into the settings as if the user had
made it: the run's `config.yaml` needs no dial and trains the same. What the user has set stays, and
the rest is fitted round it. Of several processes the main one decides, and hands the choice to
those that Lightning starts through their environment.
"""

import json
import os
from collections.abc import Callable
from typing import Any

from lightning_embed.commands.dial import Dial
from lightning_embed.commands.measuring import process_count
from lightning_embed.commands.options import Options
from lightning_embed.data.datamodule import TextDataModule
from lightning_embed.errors import UserError, require_range
from lightning_embed.processes import is_main_process, started_from_outside

HANDED_ON = "LIGHTNING_EMBED_MINUTES"  # the choice, from the main process to those it starts
A_YEAR = 525_600.0


def set_minutes(
    config: Any,
    named: set[str],
    default: Callable[[str], Any],
    build: Callable[[], TextDataModule],
    spent: float = 0.0,
) -> None:
    """Replace `--minutes` in the settings by the sizes it stands for.

    Args:
        config: all settings of `fit`, machine's choices made; changed in place.
        named: options that somebody has decided, see `Options`.
        default: of an option by its dotted name.
        build: makes the data module of the settings.
        spent: see `Dial.stop_in_time`.

    Raises:
        UserError: the minutes, the text or the way of starting processes do not allow it.
    """
    minutes = config.minutes
    if minutes is None:
        return
    require_range("--minutes", minutes, above=0, at_most=A_YEAR)
    if config.trainer.accelerator not in ("cpu", "cuda", "gpu"):
        raise UserError(
            f"--minutes times steps on CPUs and NVIDIA GPUs, not on {config.trainer.accelerator}:"
            " give --trainer.max_steps"
        )
    options = Options(config, named, default)
    if HANDED_ON in os.environ and not is_main_process():
        options.chosen = json.loads(os.environ[HANDED_ON])
    else:
        refuse_launchers(config.trainer)
        dial = Dial(60 * minutes, options, build)
        if config.ckpt_path is not None:
            dial.stop_in_time(spent)
        else:
            dial.size()
        if process_count(config.trainer) > 1:
            os.environ[HANDED_ON] = json.dumps(options.chosen)
    options.write()
    config.minutes = None


def forget() -> None:
    """What was handed on is of one run."""
    if is_main_process():
        os.environ.pop(HANDED_ON, None)


def refuse_launchers(trainer: Any) -> None:
    """Processes that start by themselves would each decide.

    Raises:
        UserError: with the way that there is.
    """
    launcher = started_from_outside()
    if launcher is None and int(trainer.num_nodes) > 1:
        launcher = f"--trainer.num_nodes {trainer.num_nodes}"
    if launcher is not None:
        raise UserError(
            f"--minutes is decided by one process, and {launcher} starts several: run it with one"
            " for a moment, then give its config.yaml to all with --config"
        )
