"""Options of `fit`, `validate`, `test` and `predict` beside those of Lightning, model and data."""

from typing import Literal

from lightning.pytorch.cli import LightningArgumentParser

from lightning_embed.checkpointing.save import Checkpoints
from lightning_embed.errors import UserError, require_range
from lightning_embed.library_internals import take_whole_numbers
from lightning_embed.padding.guard import PaddingGuard
from lightning_embed.recording.pages import Pages
from lightning_embed.training.endings import ResumableEarlyStopping
from lightning_embed.training.loss_watch import LossWatch
from lightning_embed.watching.samples import Samples

LIMITED = ("train", "val", "test", "predict")  # batches of them can be limited


def add_options(parser: LightningArgumentParser, command: str) -> None:
    """Add them to a command's parser.

    Args:
        parser: of one command.
        command: which.
    """
    parser.add_argument(
        "--name", type=str | None, default=None, help="The run's name; the config's by default."
    )
    parser.add_argument(
        "--init_from",
        type=str | None,
        default=None,
        help="fit: begin with the weights of a checkpoint, a run or a Hugging Face folder.",
    )
    parser.add_argument(
        "--progress",
        type=Literal["bar", "lines", "none"],
        default="bar",
        help="A bar where there is a terminal, else lines; or always lines; or no progress.",
    )
    if command == "fit":
        parser.add_argument(
            "--minutes",
            type=float | None,
            default=None,
            help="Size the run for the text and the machine, so that it ends after so many.",
        )
    if command in ("test", "predict"):
        parser.add_argument(
            "--files",
            type=str | list[str] | None,
            default=None,
            help="Files, globs or folders to evaluate whole, whatever the model was trained on.",
        )
    if command == "test":
        parser.add_argument(
            "--against",
            type=str | None,
            default=None,
            help="Another checkpoint, run or Hugging Face folder, compared on the same text.",
        )
        parser.add_argument(
            "--json", type=bool, default=False, help="One JSON object in place of lines."
        )
    take_whole_numbers(parser, *(f"trainer.limit_{kind}_batches" for kind in LIMITED))
    parser.link_arguments("seed_everything", "data.seed", compute_fn=seed_number)
    # In the order in which they speak: weights that are not finite are no matter of padding.
    parser.add_lightning_class_args(LossWatch, "loss_watch")
    parser.add_lightning_class_args(PaddingGuard, "padding_guard")
    parser.add_lightning_class_args(Samples, "samples")
    parser.add_lightning_class_args(Pages, "pages")
    parser.add_lightning_class_args(Checkpoints, "checkpoints")
    # By hand, because a user's own takes its place.
    parser.add_class_arguments(ResumableEarlyStopping, "early_stopping", fail_untyped=False)
    parser.set_defaults(
        {
            "early_stopping.monitor": "val/loss",
            "early_stopping.patience": 5,
            "early_stopping.strict": False,  # a run may end before its first validation
            # Lightning takes a validation at every step for one at every epoch's end.
            "early_stopping.check_on_train_epoch_end": False,
        }
    )


def seed_number(given: int | bool) -> int:
    """Lightning takes true and false too, for seeds that would not be those of the batches."""
    if isinstance(given, bool):
        raise UserError(f"--seed_everything {str(given).lower()}: give a number")
    require_range("--seed_everything", given, at_least=0, at_most=2**32 - 1)
    return given
