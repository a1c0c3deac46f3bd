"""The callbacks that a user adds to ours: side by side, in the place of ours, or refused.

Where both would do the same thing, the user's is taken or the option that does it here is named.
"""

from importlib.util import find_spec
from pathlib import Path

from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    Callback,
    DeviceStatsMonitor,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
    ModelPruning,
    OnExceptionCheckpoint,
    ProgressBar,
    SpikeDetection,
    StochasticWeightAveraging,
    Timer,
)

from lightning_embed.checkpointing.save import Checkpoints
from lightning_embed.console import say
from lightning_embed.errors import UserError
from lightning_embed.padding.guard import PaddingGuard
from lightning_embed.processes import install_command
from lightning_embed.training.loss_watch import LossWatch
from lightning_embed.watching.samples import Samples

# Why a callback cannot serve here, and what does.
REFUSED: dict[type[Callback], str] = {
    GradientAccumulationScheduler: "the plan of batches is made once for the whole run: give"
    " --trainer.accumulate_grad_batches, the same throughout",
    StochasticWeightAveraging: "it copies the model before there is a network and replaces the"
    " learning rate's schedule: take EMAWeightAveraging",
    LearningRateFinder: "it gives all parameters one learning rate, and Muon's is not AdamW's: try"
    " --model.lr and --model.muon_lr with a small --trainer.max_steps",
    BatchSizeFinder: "the plan of batches is made before there is a model: give"
    " --data.tokens_per_batch, and --trainer.accumulate_grad_batches where memory is short",
    BaseFinetuning: "it thaws parts of a pretrained model, and here all are trained from the start",
    ModelPruning: "it renames the weights, so that no checkpoint fits the model",
    SpikeDetection: "its state cannot be loaded again in this version of Lightning: the built-in"
    " --loss_watch counts spikes and stops where a loss is not finite",
    OnExceptionCheckpoint: "the built-in --checkpoints saves before an exception ends the run",
    PaddingGuard: "it is there already: set --padding_guard.*",
    Samples: "it is there already: set --samples.*",
    LossWatch: "it is there already: set --loss_watch.*",
    Checkpoints: "it is there already: set --checkpoints.*",
}

OURS = {"last", "best", "previous", "next"}  # names of files that `Checkpoints` writes


def accept(callbacks: list[Callback], folder: Path, max_time: object) -> None:
    """Refuse what cannot serve here, and say what takes the place of what.

    Args:
        callbacks: the user's.
        folder: of the run's checkpoints, where a ModelCheckpoint without a folder writes too.
        max_time: of the trainer, which a Timer of the user's replaces.

    Raises:
        UserError: one line with what serves instead.
    """
    for callback in callbacks:
        name = type(callback).__name__
        for refused, why in REFUSED.items():
            if isinstance(callback, refused):
                raise UserError(f"--trainer.callbacks {name} cannot serve here: {why}")
        if isinstance(callback, DeviceStatsMonitor) and find_spec("psutil") is None:
            raise UserError(f"--trainer.callbacks {name} needs psutil: {install_command('psutil')}")
        if isinstance(callback, ModelCheckpoint):
            _beside_ours(callback, folder)
    if max_time is not None and has(callbacks, Timer):
        say("note", "--trainer.callbacks Timer takes the place of --trainer.max_time")
    if has(callbacks, EarlyStopping):
        say("note", "--trainer.callbacks EarlyStopping takes the place of --early_stopping")


def has(callbacks: list[Callback], kind: type[Callback]) -> bool:
    return any(isinstance(callback, kind) for callback in callbacks)


def shows_a_bar(callbacks: list[Callback], asked: bool | None) -> bool:
    """Whether Lightning's bar takes the place of our lines of progress."""
    return bool(asked) or has(callbacks, ProgressBar)


def _beside_ours(callback: ModelCheckpoint, folder: Path) -> None:
    """A ModelCheckpoint may write into the run's folder, but no file that is ours."""
    if callback.dirpath is None:
        callback.dirpath = str(folder)
    if Path(callback.dirpath).resolve() != folder.resolve():
        return
    if callback.save_last or callback.filename in OURS:
        name = "save_last" if callback.save_last else f"filename {callback.filename}"
        raise UserError(
            f"--trainer.callbacks ModelCheckpoint with {name} would write over the built-in"
            " --checkpoints' files: leave it out, or give it a dirpath of its own"
        )
