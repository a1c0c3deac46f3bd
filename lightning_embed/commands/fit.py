"""The commands that run Lightning's Trainer: `fit`, `validate`, `test`, `predict`.

`EmbedCLI` is LightningCLI with a run's parts put together in plain sight: its folder, the
checkpoint it begins from, its callbacks.
"""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from lightning_embed.checkpointing.compatibility import (
    DATA,
    Candidate,
    Purpose,
    check,
    trainer_settings,
)
from lightning_embed.checkpointing.files import AtomicCheckpointIO
from lightning_embed.checkpointing.resume import Resuming
from lightning_embed.checkpointing.run_folders import Run, choose_run, run_name
from lightning_embed.checkpointing.save import Checkpoints
from lightning_embed.checkpointing.stop import GracefulStop
from lightning_embed.commands.callbacks import accept, has, shows_a_bar
from lightning_embed.commands.lightning_errors import refusals_in_one_line
from lightning_embed.commands.parser import (
    OneLineParser,
    expand_paths,
    name_enums,
    require_settings_files,
)
from lightning_embed.commands.quiet import quiet_libraries
from lightning_embed.commands.unsupported import (
    refuse_pieces,
    refuse_unsupported,
    several,
    takes_precision,
)
from lightning_embed.console import say
from lightning_embed.data.datamodule import TextDataModule
from lightning_embed.errors import UserError
from lightning_embed.hardware import keep_freed_memory, settle_threads, suggested_precision
from lightning_embed.library_internals import command_parser
from lightning_embed.padding.guard import PaddingGuard
from lightning_embed.processes import command, is_main_process
from lightning_embed.training.lightning_module import LanguageModel
from lightning_embed.training.loss_watch import LossWatch
from lightning_embed.training.run_length import RunLength, planned_steps
from lightning_embed.training.seeding import Seeding
from lightning_embed.watching.crowding import Crowding
from lightning_embed.watching.curves import Curves, quiet_writer
from lightning_embed.watching.predictions import write_predictions
from lightning_embed.watching.progress import Progress
from lightning_embed.watching.samples import Samples
from lightning_embed.watching.summary import say_end, say_evaluation, say_start
from lightning_embed.watching.throughput import Throughput


def fit(args: list[str]) -> None:
    """Train a model."""
    EmbedCLI("fit", args)


def validate(args: list[str]) -> None:
    """Evaluate a checkpoint on the held-out text."""
    EmbedCLI("validate", args)


def test(args: list[str]) -> None:
    """Evaluate a checkpoint on the held-out text, logged as `test/` figures."""
    EmbedCLI("test", args)


def predict(args: list[str]) -> None:
    """Write bits per byte of each held-out file, as a table."""
    EmbedCLI("predict", args)


def seed_number(given: int | bool) -> int:
    """Lightning takes true and false too, for seeds that would not be those of the batches."""
    if isinstance(given, bool):
        raise UserError(f"--seed_everything {str(given).lower()}: give a number")
    return given


class SaveConfig(SaveConfigCallback):
    """Writes the whole configuration to `path`, whatever logger there is."""

    def __init__(self, *args: Any, path: Path, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.path = path

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.parser.save(self.config, str(self.path), skip_none=False, overwrite=True)


class EmbedCLI(LightningCLI):
    """One command (`fit`, `validate`, `test` or `predict`) with its options.

    Args:
        command: which.
        args: the rest of the command line.
    """

    def __init__(self, command: str, args: list[str]) -> None:
        self.command, self.args = command, args
        self.checkpoint: dict[str, Any] = {}  # what a command begins from, tensors aside
        quiet_libraries()
        quiet_writer()
        try:
            self._start()
        except BaseException:
            run: Run | None = getattr(self, "run", None)
            if run is not None and is_main_process():
                run.release()  # if nothing was written there
            raise

    def _start(self) -> None:
        super().__init__(
            LanguageModel,
            TextDataModule,
            args=[self.command, *self.args],
            parser_class=OneLineParser,
            parser_kwargs={"prog": "train.py"},
            seed_everything_default=42,
            trainer_defaults={
                "default_root_dir": "runs",
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "num_sanity_val_steps": 0,
                "gradient_clip_val": 1.0,
                "use_distributed_sampler": False,  # the plan deals out rows itself
                "inference_mode": False,  # its tensors cannot enter the graph of training
            },
            save_config_callback=SaveConfig if self.command == "fit" else None,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    @property
    def purpose(self) -> Purpose:
        return "train" if self.command == "fit" else "evaluate"

    # Parsing ---------------------------------------------------------------------------------

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        require_settings_files(args)
        self.config = parser.parse_args(args)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        # Only the one asked for: building all four parsers takes seconds.
        return {self.command: LightningCLI.subcommands()[self.command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--name", type=str | None, default=None, help="The run's name; the config's by default."
        )
        parser.link_arguments("seed_everything", "data.seed", compute_fn=seed_number)
        parser.add_lightning_class_args(PaddingGuard, "padding_guard")
        parser.add_lightning_class_args(Samples, "samples")
        parser.add_lightning_class_args(LossWatch, "loss_watch")
        parser.add_lightning_class_args(Checkpoints, "checkpoints")
        # By hand, because a user's own takes its place.
        parser.add_class_arguments(EarlyStopping, "early_stopping", fail_untyped=False)
        parser.set_defaults(
            {
                "early_stopping.monitor": "val/loss",
                "early_stopping.patience": 5,
                "early_stopping.strict": False,  # a run may end before its first validation
                # Lightning takes a validation at every step for one at every epoch's end.
                "early_stopping.check_on_train_epoch_end": False,
            }
        )

    def _parse_ckpt_path(self) -> None:
        """Replaces LightningCLI's, which silently prefers a checkpoint's settings to the user's."""

    def instantiate_classes(self) -> None:
        """Build trainer, model and data."""
        with refusals_in_one_line():
            super().instantiate_classes()

    # Choices a machine makes --------------------------------------------------------------------

    def before_instantiate_classes(self) -> None:
        config = self.config[self.command]
        expand_paths(config)
        name_enums(config)
        trainer = config.trainer
        if trainer.accelerator == "auto":  # on macOS MPS must be asked for
            trainer.accelerator = "cuda" if torch.cuda.is_available() else "cpu"
        refuse_pieces(trainer)
        if trainer.accelerator == "cpu":
            settle_threads()
            keep_freed_memory()
        self.reason = "as asked"
        if trainer.precision is None and not takes_precision(trainer.plugins):
            trainer.precision, self.reason = suggested_precision(trainer.accelerator)
        if trainer.accelerator == "cpu" and str(trainer.precision) in ("16", "16-mixed"):
            trainer.precision, self.reason = "bf16-mixed", "16-mixed is for GPUs"
        if self.command == "fit":
            refuse_unsupported(trainer)
        if trainer.deterministic is None and trainer.accelerator == "cpu":
            trainer.deterministic = True
        # Else determinism writes NaN over all new memory: help for debugging, 1 % of a small step.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        files = config.get("config") or []
        self.config_path = str(files[0]) if files else None
        stem = Path(self.config_path).stem if self.config_path else "run"
        self.run = choose_run(
            Path(trainer.default_root_dir),
            config.name or stem,
            given=config.name is not None,
            ckpt_path=config.ckpt_path,
            purpose=self.purpose,
            claims=is_main_process(),
        )
        config.name = run_name(self.run.folder) if is_main_process() else config.name or stem
        if self.run.checkpoint is not None:
            config.ckpt_path = str(self.run.checkpoint)
            self._check(self.run.checkpoint, config)

    def _check(self, path: Path, config: Any) -> None:
        """Nothing in a checkpoint overrides what was asked for without a word."""
        parser = command_parser(self, self.command)
        candidate = Candidate(
            path,
            self.purpose,
            model=config.model,
            default=lambda key: parser.get_default(f"model.{key}"),
            trainer=trainer_settings(config.trainer),
        )
        check(candidate, "file", "content", "run")
        self.checkpoint = candidate.checkpoint
        if candidate.trains:
            epoch = self.checkpoint[DATA]["epoch"]  # Lightning's own runs ahead
            say("resume", f"{path}: step {self.checkpoint['global_step']}, epoch {epoch}")
        check(candidate, "settings")

    # Assembly ----------------------------------------------------------------------------------

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        config = self.config_init[self.command]
        given = config["trainer"]
        limits = given["max_steps"], given["max_epochs"]
        throughput = Throughput()
        resumed = len(list(self.run.folder.glob("config*.yaml"))) if self.run.checkpoint else 0
        saved = self.run.folder / (f"config-resume-{resumed}.yaml" if resumed else "config.yaml")
        self.resume = ("fit", "--config", saved, "--ckpt_path", self.run.folder)
        checkpoints = config["checkpoints"]
        checkpoints.folder = self.run.checkpoints
        theirs: list[L.Callback] = several(given["callbacks"])
        fit = self.command == "fit"
        if fit:
            accept(theirs, checkpoints.folder, given["max_time"])
        bar = shows_a_bar(theirs, given["enable_progress_bar"])
        given["callbacks"] = [
            *theirs,
            RunLength(given=limits != (-1, None)),
            Seeding(config["data"].seed),
            throughput,
            Progress(throughput, lines=not bar),
            Crowding(),
            GracefulStop(checkpoints, command(*self.resume)),
            Resuming(trainer_settings(self.config[self.command].trainer)),
            *([] if has(theirs, EarlyStopping) else [config["early_stopping"]]),
        ]
        kwargs["enable_progress_bar"] = bar
        kwargs["plugins"] = [*several(given["plugins"]), AtomicCheckpointIO()]
        if given["logger"] is None:
            folder = self.run.folder
            first = self.checkpoint["global_step"] + 1 if self.checkpoint else None
            kwargs["logger"] = fit and Curves(str(folder.parent), folder.name, first)
        self.save_config_kwargs = {"path": saved, "save_to_log_dir": False}
        return super().instantiate_trainer(**kwargs)

    # Commands ----------------------------------------------------------------------------------

    def before_fit(self) -> None:
        """Refuse what cannot be before anything is loaded or written: on the main process, which
        prepares the text; others learn of it in `TextDataModule.setup`."""
        if not is_main_process():
            return
        data = self.checkpoint.get(DATA)
        if data is not None:
            self.datamodule.go_on_with(data, training=self.command == "fit")
        self.model.require_possible(self.datamodule)

    before_validate = before_test = before_predict = before_fit

    def fit(self, model: LanguageModel, datamodule: TextDataModule, **kwargs: Any) -> None:
        first_step = self.checkpoint.get("global_step", 0)
        say("run", f"{self.run.folder}   seed {datamodule.seed}")
        if is_main_process():
            if self.run.checkpoint is not None:
                self.run.note_start()
            say_start(self.trainer, model, datamodule.prepared, self.reason)
            datamodule.prepared.tokenizer.save(self.run.folder / "tokenizer.json")
        with refusals_in_one_line(lambda: self.trainer.global_step == first_step):
            self.trainer.fit(model, datamodule, **kwargs | {"weights_only": True})
        if self.trainer.global_step == first_step:
            say(
                "note",
                f"nothing was left to train: the run is at step {self.trainer.global_step} already;"
                " raise --trainer.max_steps or --trainer.max_time",
            )
        config = self.config_init[self.command]
        say_end(
            self.trainer,
            model,
            datamodule,
            root=self.run.folder.parent,
            resume=command(*self.resume, *self._longer()),
            checkpoints=config["checkpoints"],
            samples=config["samples"],
            config=self.config_path,
        )

    def _longer(self) -> tuple[str, ...]:
        """What a run that has reached its limits needs to go on."""
        given, steps = self.config[self.command].trainer, self.trainer.global_step
        if steps < planned_steps(self.trainer):
            return () if given.max_time is None else ("--trainer.max_time", "null")
        schedule = ("--model.schedule_steps", str(2 * steps))
        if given.max_epochs and given.max_epochs > 0:
            return ("--trainer.max_epochs", str(2 * given.max_epochs), *schedule)
        return ("--trainer.max_steps", str(2 * steps), *schedule)

    def validate(self, model: LanguageModel, datamodule: TextDataModule, **kwargs: Any) -> None:
        kwargs |= {"weights_only": True, "verbose": False}
        with refusals_in_one_line():
            self.trainer.validate(model, datamodule, **kwargs)
        say_evaluation(model.evaluation)

    def test(self, model: LanguageModel, datamodule: TextDataModule, **kwargs: Any) -> None:
        kwargs |= {"weights_only": True, "verbose": False}
        with refusals_in_one_line():
            self.trainer.test(model, datamodule, **kwargs)
        say_evaluation(model.evaluation)

    def predict(self, model: LanguageModel, datamodule: TextDataModule, **kwargs: Any) -> None:
        if self.trainer.world_size > 1:
            raise UserError("predict runs in one process; give --trainer.devices 1")
        kwargs |= {"weights_only": True, "return_predictions": True}
        with refusals_in_one_line():
            rows: Any = self.trainer.predict(model, datamodule, **kwargs)
        sources = datamodule.prepared.report.sources
        write_predictions(rows, sources, self.run.folder / "predictions.csv")
