"""The commands that evaluate a checkpoint: `validate`, `test`, `predict`.

`EvaluationCLI` is `EmbedCLI` with a text to score in place of one to train on.
"""

import json
import sys
from contextlib import redirect_stdout
from typing import Any

from lightning_embed.checkpointing.compatibility import DATA
from lightning_embed.commands.fit import EmbedCLI
from lightning_embed.commands.lightning_errors import refusals_in_one_line
from lightning_embed.commands.scoring import (
    Contestant,
    contestant,
    score_files,
    take_files,
    tested,
    text_of,
)
from lightning_embed.console import say
from lightning_embed.data.datamodule import TextDataModule
from lightning_embed.errors import UserError, writing
from lightning_embed.evaluation.report import as_json, say_difference
from lightning_embed.processes import is_main_process
from lightning_embed.recording.curves import require_writable
from lightning_embed.tokens.lossy import LOSSY, ONLY_AMONG_THEMSELVES
from lightning_embed.training.lightning_module import LanguageModel
from lightning_embed.watching.predictions import predictions_name, write_predictions, write_tokens
from lightning_embed.watching.summary import say_evaluation


def validate(args: list[str]) -> None:
    """Evaluate a checkpoint on the held-out text."""
    EvaluationCLI("validate", args)


def test(args: list[str]) -> None:
    """Evaluate a checkpoint with confidence intervals, on any text; or compare two."""
    EvaluationCLI("test", args)


def predict(args: list[str]) -> None:
    """Write bits per byte of each held-out file, as a table."""
    EvaluationCLI("predict", args)


class EvaluationCLI(EmbedCLI):
    """One command (`validate`, `test` or `predict`) with its options.

    Args:
        command: which.
        args: the rest of the command line.
    """

    def __init__(self, command: str, args: list[str]) -> None:
        self.out = sys.stdout  # of JSON, beside which lines for a person have no place
        super().__init__(command, args)

    def choose_text(self, config: Any, args: list[str]) -> None:
        if config.get("json"):
            self.shown.enter_context(redirect_stdout(sys.stderr))
        if config.get("files"):
            take_files(config, args)
        else:
            super().choose_text(config, args)

    def before_validate(self) -> None:
        """Find the text on the main process, as `before_fit` does."""
        if not is_main_process():
            return
        require_writable(self.trainer.loggers)
        config, tokenizer = self.config[self.command], self.checkpoint.get("tokenizer")
        data = self.checkpoint.get(DATA)
        if config.get("files"):
            score_files(self.datamodule, config, tokenizer)
        elif data is not None:
            self.datamodule.text.score_with(data, tokenizer)
        if data is not None:
            self.datamodule.go_on_with(data, training=False)
            if self.datamodule.text.is_other:
                self.datamodule.text.note_trained_on(data)
        self.model.require_possible(self.datamodule)

    before_test = before_predict = before_validate

    def validate(self, model: LanguageModel, datamodule: TextDataModule, **kwargs: Any) -> None:
        kwargs |= {"weights_only": True, "verbose": False}
        with refusals_in_one_line():
            self.trainer.validate(model, datamodule, **kwargs)
        say_evaluation(model.evaluation, datamodule)

    def test(self, model: LanguageModel, datamodule: TextDataModule, **kwargs: Any) -> None:
        kwargs |= {"weights_only": True, "verbose": False}
        config = self.config_init[self.command]
        other: Contestant | None = None
        if config.against is not None:
            limit = self.trainer.limit_test_batches  # in which 1 is one batch and 1.0 is all
            if isinstance(limit, int) or limit < 1:
                raise UserError("--against needs all of the text: no --trainer.limit_test_batches")
            other = contestant(config.against, self.run.folder.parent, datamodule)
        with refusals_in_one_line():
            self.trainer.test(model, datamodule, **kwargs)
            if other is not None:
                self.trainer.test(other.model, other.data, verbose=False)
        its = tested(self.run.checkpoint, model, datamodule)
        others = tested(other.path, other.model, other.data) if other is not None else None
        say_evaluation(model.evaluation, datamodule, "test", details=its)
        if its is not None and others is not None:
            say_difference(its, others)
        if config.json and is_main_process():
            found = its and {**text_of(datamodule), **as_json(its, others)}
            print(json.dumps(found, indent=2, allow_nan=False), file=self.out)

    def predict(self, model: LanguageModel, datamodule: TextDataModule, **kwargs: Any) -> None:
        if self.trainer.world_size > 1:
            raise UserError("predict runs in one process; give --trainer.devices 1")
        kwargs |= {"weights_only": True, "return_predictions": True}
        files = self.config[self.command].files
        model.keeps_tokens = bool(files)
        with refusals_in_one_line():
            rows: Any = self.trainer.predict(model, datamodule, **kwargs)
        prepared = datamodule.prepared
        path = self.run.folder / predictions_name(prepared, own=not datamodule.text.is_other)
        whole = prepared.report.splits["validation"].bytes
        with writing(self.run.folder, "--trainer.default_root_dir"):
            write_predictions(rows, prepared.report.sources, path, whole)
            if not prepared.report.keeps_text:
                say("note", f"bits per byte{LOSSY}: {ONLY_AMONG_THEMSELVES}")
            if files:
                write_tokens(rows, prepared, datamodule.eval_windows(), path)
