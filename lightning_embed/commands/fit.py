"""The `fit` command, and what every command that runs Lightning's Trainer needs.

`EmbedCLI` is LightningCLI with a run's parts put together in plain sight: its folder, the
checkpoint it begins from, its callbacks. `evaluate.py` has the commands that evaluate.
"""

import gc
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch import callbacks
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from lightning_embed.bar import no_bars
from lightning_embed.checkpointing.compatibility import (
    DATA,
    Candidate,
    Purpose,
    check,
    trainer_settings,
    trainer_settings_then,
)
from lightning_embed.checkpointing.lightning_io import AtomicCheckpointIO
from lightning_embed.checkpointing.resume import Resuming
from lightning_embed.checkpointing.run_folders import Run, choose_run, run_name
from lightning_embed.checkpointing.stop import GracefulStop
from lightning_embed.commands import minutes, source_options
from lightning_embed.commands.arguments import add_options
from lightning_embed.commands.callbacks import accept, has, shows_a_bar
from lightning_embed.commands.init_from import begin_from
from lightning_embed.commands.lightning_errors import refusals_in_one_line
from lightning_embed.commands.monitors import require_monitors
from lightning_embed.commands.options import named_in
from lightning_embed.commands.parser import (
    SWITCHES,
    OneLineParser,
    add_up_lists,
    expand_paths,
    name_enums,
    require_settings_files,
    settings_files_first,
    settings_on_command_line,
    with_values,
)
from lightning_embed.commands.quiet import quiet_libraries
from lightning_embed.commands.saved_config import SaveConfig
from lightning_embed.commands.settling import choose_formats, settle
from lightning_embed.commands.shipped_configs import shown, with_shipped_configs
from lightning_embed.commands.splitting import FLAG, BeginAnew, settled_accumulation, used_up
from lightning_embed.commands.text_choice import TEXTS, prefer_later_text
from lightning_embed.commands.unsupported import several
from lightning_embed.commands.version import facts
from lightning_embed.commands.waiting import wait_in_words
from lightning_embed.console import say
from lightning_embed.data.datamodule import TextDataModule
from lightning_embed.library_internals import command_parser
from lightning_embed.pretrained.weights import Pretrained
from lightning_embed.processes import command as command_line
from lightning_embed.processes import command_of_all, is_main_process
from lightning_embed.recording.curves import Curves, quiet_writer, require_writable
from lightning_embed.training.endings import flags_to_go_on, time_spent
from lightning_embed.training.lightning_module import LanguageModel
from lightning_embed.training.run_length import RunLength
from lightning_embed.training.seeding import Seeding
from lightning_embed.watching.crowding import Crowding
from lightning_embed.watching.evaluation_bar import EvaluationBar
from lightning_embed.watching.progress import Progress
from lightning_embed.watching.summary import say_end, say_start
from lightning_embed.watching.throughput import Throughput


def fit(args: list[str]) -> None:
    """Train a model."""
    more: list[str] = []
    while True:
        try:
            EmbedCLI("fit", [*args, *more])
            return
        except BeginAnew as anew:
            more = [FLAG, str(anew.accumulate)]
        gc.collect()  # the model that did not fit


class _Parser(OneLineParser, LightningArgumentParser):
    """Lightning's parser, telling of mistakes as ours does."""


class EmbedCLI(LightningCLI):
    """One command with its options: `fit`, or, as `EvaluationCLI`, one that evaluates.

    Args:
        command: which.
        args: the rest of the command line.
    """

    def __init__(self, command: str, args: list[str]) -> None:
        self.command, self.args = command, with_shipped_configs(args)
        self.checkpoint: dict[str, Any] = {}  # what a command begins from, tensors aside
        self.candidate: Candidate | None = None  # that checkpoint, as the gate sees it
        self.start: Pretrained | None = None  # the weights that a new run begins with
        quiet_libraries()
        quiet_writer()
        try:
            with ExitStack() as self.shown:  # what is shown, and where, until the command ends
                self._start()
        except BeginAnew:
            self.run.discard()
            raise
        except BaseException:
            self._release()
            raise
        finally:
            minutes.forget()

    def _release(self) -> None:
        """Give the run's folder back if nothing was written there."""
        run: Run | None = getattr(self, "run", None)
        if run is not None and is_main_process():
            run.release()

    def _start(self) -> None:
        super().__init__(
            LanguageModel,
            TextDataModule,
            args=[self.command, *settings_files_first(self.args)],
            parser_class=_Parser,
            parser_kwargs={"prog": command_line()},
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
        others, typed = source_options.part(args)
        self.config = parser.parse_args(with_values(add_up_lists(others), SWITCHES))
        source_options.put_into(self.config[self.command].data, typed)
        if self.config[self.command].progress != "bar":
            self.shown.enter_context(no_bars())
        self.choose_text(self.config[self.command], args)

    def choose_text(self, config: Any, args: list[str]) -> None:
        """Of the texts that the parsed settings name; `args` is the command line."""
        prefer_later_text(args, config.data)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        # Only the one asked for: building all four parsers takes seconds.
        return {self.command: LightningCLI.subcommands()[self.command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        add_options(parser, self.command)

    def _parse_ckpt_path(self) -> None:
        """Replaces LightningCLI's, which silently prefers a checkpoint's settings to the user's."""

    def instantiate_classes(self) -> None:
        """Build trainer, model and data."""
        with refusals_in_one_line():
            super().instantiate_classes()
        if self.start is not None:
            self.datamodule.text.take_tokenizer(self.start.tokenizer)
            self.model.begin_with(self.start.network.state_dict())
            self.start = None  # the weights are needed once

    # Choices a machine makes --------------------------------------------------------------------

    def before_instantiate_classes(self) -> None:
        config = self.config[self.command]
        expand_paths(config)
        name_enums(config)
        default = command_parser(self, self.command).get_default
        settle(config, default, trains=self.command == "fit")
        trainer = config.trainer
        self.config_files = [str(file) for file in config.get("config") or []]
        stem = Path(self.config_files[0]).stem if self.config_files else "run"
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
        else:
            self.precision_reason = choose_formats(config, {})
        self.sized = self.command == "fit" and config.minutes is not None
        settled = set() if config.init_from is None else self._begin_from(config)
        if self.command == "fit":
            named = named_in(self.args) | settled
            spent = time_spent(self.checkpoint)
            minutes.set_minutes(config, named, default, self._build_data, spent)

    def _begin_from(self, config: Any) -> set[str]:
        """Take weights and settings of `--init_from` for a new run; a checkpoint has its own.
        Returns the settings that are decided by it."""
        if self.run.checkpoint is not None:
            if "init_from" in named_in(settings_on_command_line(self.args)):
                say(
                    "note",
                    f"--init_from {config.init_from} has no effect: the weights are those of"
                    f" {self.run.checkpoint}",
                )
            return set()
        self.start, settled = begin_from(config, self.args, self.run.folder)
        return settled

    def _build_data(self) -> TextDataModule:
        """The data module of the settings as they are now, apart from the run's own. The model is
        the default one: that of the settings may have sizes that do not go together yet."""
        parser, settings = command_parser(self, self.command), self.config.clone()
        for name in settings[self.command].model.as_dict():
            settings[self.command].model[name] = parser.get_default(f"model.{name}")
        with refusals_in_one_line():
            data: TextDataModule = self.parser.instantiate_classes(settings)[self.command].data
        if self.start is not None:
            data.text.take_tokenizer(self.start.tokenizer)
        return data

    def _check(self, path: Path, config: Any) -> None:
        """Ask the gate whether this command may use a checkpoint, and keep what it holds."""
        parser = command_parser(self, self.command)
        candidate = Candidate(
            path,
            self.purpose,
            model=config.model,
            default=lambda key: parser.get_default(f"model.{key}"),
        )
        check(candidate, "file", "content", "run", "shape")
        tensors = ("state_dict", "optimizer_states")  # they would keep their file open all along
        self.checkpoint = {k: v for k, v in candidate.checkpoint.items() if k not in tensors}
        if candidate.trains:
            epoch = self.checkpoint[DATA]["epoch"]  # Lightning's own runs ahead
            say("resume", f"{path}: step {self.checkpoint['global_step']}, epoch {epoch}")
        begun: dict[str, Any] = {}
        if candidate.trains:
            begun = self.checkpoint["hyper_parameters"] | trainer_settings_then(self.checkpoint)
        self.precision_reason = choose_formats(config, begun)
        candidate.trainer = trainer_settings(config.trainer)
        candidate.checkpoint, self.candidate = self.checkpoint, candidate
        if not candidate.trains:
            self._evaluate_alike(config, parser.get_default("data.max_length"))

    def _evaluate_alike(self, config: Any, default_length: int) -> None:
        """Have an evaluation cut and draw the text as the run's own did, unless it is told how."""
        data, named = config.data, named_in(self.args)
        if data.max_length == default_length:
            then = self.checkpoint["hyper_parameters"].get("max_length")
            data.max_length = then or data.max_length
        its = self.checkpoint.get(DATA, {}).get("evaluation", {})
        if "data.eval_overlap" not in named:
            data.eval_overlap = min(its.get("eval_overlap", 0), data.max_length - 1)
        other_text = {"files", *(f"data.{text}" for text in TEXTS)} & named
        if "data.final_eval_tokens" not in named and not other_text:
            data.final_eval_tokens = its.get("final_eval_tokens")

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
        checkpoints.resume = command_of_all(*self.resume)
        pages, versions = config["pages"], facts()
        pages.folder, pages.config, pages.versions = self.run.folder, saved, versions
        pages.command = command_of_all(self.command, *self.args)
        gpu = versions["gpu"]
        pages.machine = versions["processor"] if gpu == "none" else gpu
        theirs: list[L.Callback] = several(given["callbacks"])
        fit = self.command == "fit"
        if fit:
            accept(theirs, checkpoints.folder, given["max_time"])
        self.stop = GracefulStop(checkpoints)
        self.resuming = Resuming(trainer_settings(self.config[self.command].trainer))
        if bar := shows_a_bar(theirs, given["enable_progress_bar"]):
            self.shown.enter_context(no_bars())  # of ours
        given["callbacks"] = [
            *theirs,
            RunLength(given=limits != (-1, None)),
            Seeding(config["data"].seed),
            throughput,
            Progress(throughput, "lightning" if bar else config["progress"], self.sized),
            EvaluationBar(),
            Crowding(),
            self.stop,
            self.resuming,
            *([] if has(theirs, callbacks.EarlyStopping) else [config["early_stopping"]]),
        ]
        kwargs["enable_progress_bar"] = bar
        kwargs["plugins"] = [*several(given["plugins"]), AtomicCheckpointIO()]
        if given["logger"] is None:
            folder = self.run.folder
            first = self.checkpoint["global_step"] + 1 if fit and self.checkpoint else None
            kwargs["logger"] = fit and Curves(str(folder.parent), folder.name, first)
        self.save_config_kwargs = {"path": saved, "save_to_log_dir": False}
        trainer = super().instantiate_trainer(**kwargs)
        wait_in_words(trainer, self._release)
        return trainer

    # Commands ----------------------------------------------------------------------------------

    def before_fit(self) -> None:
        """Refuse what cannot be before anything is loaded or written: on the main process, which
        prepares the text; others learn of it in `TextDataModule.setup`."""
        require_monitors(self.trainer.callbacks)  # type: ignore[attr-defined]
        if not is_main_process():
            return
        require_writable(self.trainer.loggers)
        if (data := self.checkpoint.get(DATA)) is not None:
            self.datamodule.go_on_with(data, training=True)
        self.model.require_possible(self.datamodule)
        if self.candidate is not None:
            check(self.candidate, "changes")  # said once nothing refuses them
        self._split(settled_accumulation(self.trainer, self.model, self.datamodule))

    def _split(self, accumulate: int) -> None:
        """Have the run, its saved configuration and its checkpoints know how a step is split; the
        other processes learn of it in `RunLength.setup`."""
        self.trainer.accumulate_grad_batches = accumulate
        self.config[self.command].trainer.accumulate_grad_batches = accumulate
        self.resuming.settings["accumulate_grad_batches"] = accumulate

    def fit(self, model: LanguageModel, datamodule: TextDataModule, **kwargs: Any) -> None:
        first_step = self.checkpoint.get("global_step", 0)
        say("run", f"{self.run.folder}   seed {datamodule.seed}")
        if is_main_process():
            if self.run.checkpoint is not None:
                self.run.note_start()
            lossy = {} if datamodule.prepared.report.keeps_text else {"lossy": True}
            self.run.note(parameters=model.parameter_count(), **lossy)
            say_start(self.trainer, model, datamodule, self.precision_reason)
        with refusals_in_one_line(lambda: self.trainer.global_step == first_step):
            try:
                self.trainer.fit(model, datamodule, **kwargs | {"weights_only": True})
            except Exception as error:
                self.stop.end_if_asked(self.trainer)
                if isinstance(error, torch.OutOfMemoryError):
                    raise used_up(self.trainer, model, datamodule, first_step) from None
                raise
        if self.trainer.global_step == first_step:
            say(
                "note",
                f"nothing was left to train: the run is at step {self.trainer.global_step} already;"
                " raise --trainer.max_steps or --trainer.max_time",
            )
        config, given = self.config_init[self.command], self.config[self.command].trainer
        say_end(
            self.trainer,
            model,
            datamodule,
            root=self.run.folder.parent,
            resume=command_of_all(*self.resume, *flags_to_go_on(self.trainer, given)),
            checkpoints=config["checkpoints"],
            samples=config["samples"],
            pages=config["pages"],
            configs=[shown(file) for file in self.config_files],
            # A shipped file of settings may name files; several sources are always one's own.
            own_text=bool(self.config[self.command].data.sources)
            or "data.files" in named_in(settings_on_command_line(self.args)),
        )
        if is_main_process():
            with suppress(OSError):  # a full disk, of which the run has told
                self.run.note(finished=time.time())
