"""What `test` and `predict` take beside Lightning's options: any files, another checkpoint."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning_embed.commands.options import named_in
from lightning_embed.commands.parser import settings_on_command_line
from lightning_embed.commands.text_choice import OPTIONS_OF, TEXTS
from lightning_embed.console import say
from lightning_embed.data.datamodule import TextDataModule
from lightning_embed.errors import UserError
from lightning_embed.evaluation.breakdown import Scored
from lightning_embed.evaluation.report import Tested
from lightning_embed.pretrained.opening import open_pretrained
from lightning_embed.processes import is_main_process
from lightning_embed.sources.files import FilesCorpus
from lightning_embed.sources.texts import DocumentRule
from lightning_embed.tokens.tokenizer import TextTokenizer
from lightning_embed.training.lightning_module import LanguageModel

OTHER_TEXT = (*(f"data.{text}" for text in TEXTS), "data.tokenizer")


def take_files(config: Any, args: list[str]) -> None:
    """Have `--files` be the text, in place, whatever a file of settings names.

    Raises:
        UserError: the command line, `args`, names another text or a tokenizer as well.
    """
    typed = named_in(settings_on_command_line(args))
    for name in OTHER_TEXT:
        if name in typed:
            raise UserError(
                f"--files names the text, in the tokens of the checkpoint: leave out --{name}"
            )
    if isinstance(config.files, str):
        config.files = [config.files]
    for text in TEXTS:
        config.data[text] = None
    config.data.files, config.data.mix = config.files, None
    for option, default in OPTIONS_OF["files"].items():
        if f"data.{option}" not in typed:  # a file of settings says it of the text it names
            config.data[option] = default


def score_files(data: TextDataModule, config: Any, tokenizer_json: str | None) -> None:
    """Have the data module hold out all of `--files`, in the tokens of the checkpoint's tokenizer.

    Raises:
        UserError: the checkpoint has none, or no file holds text.
        FileNotFoundError: no such file.
    """
    if tokenizer_json is None:
        raise UserError(
            "this checkpoint carries no tokenizer: give --data.files and --data.tokenizer in place"
            " of --files"
        )
    asked = config.data
    files = FilesCorpus(
        tuple(config.files),
        asked.text_column,
        whole=True,
        rule=DocumentRule(asked.document, asked.separator),
        format=asked.format,
        flag="--files",
    )
    if asked.text_column != "text" and files.is_text:  # it may be of a file of settings
        say("note", f"--data.text_column {asked.text_column} has no effect: --files is text")
        files = replace(files, text_column="text")
    data.text.score_all_of(files, TextTokenizer.from_json(tokenizer_json))


@dataclass(frozen=True)
class Contestant:
    """A model that is yet to be evaluated, where it was found, and the text in its tokens."""

    path: Path
    model: LanguageModel
    data: TextDataModule


def contestant(wanted: str, root: Path, first: TextDataModule) -> Contestant:
    """The checkpoint, run or Hugging Face folder to compare with, and the text of `first` in its
    tokenizer's tokens and in windows of the length it was trained with.

    Raises:
        UserError: there is none, it cannot be used, or it carries no tokenizer.
    """
    found = open_pretrained(wanted, root)
    model = LanguageModel(found.tokenizer.vocab_size, found.max_length, **found.settings)
    model.network.load_state_dict(found.network.state_dict())
    return Contestant(
        Path(found.about["path"]), model, _again(first, found.tokenizer, found.max_length)
    )


def _again(first: TextDataModule, tokenizer: TextTokenizer, max_length: int) -> TextDataModule:
    """The text of `first` once more, otherwise cut."""
    data = TextDataModule(
        max_length=max_length,
        tokens_per_batch=max(first.settings.tokens, max_length),
        eval_overlap=first.eval_overlap,
        num_workers=first.num_workers,
        cache_dir=str(first.text.cache_dir),
    )
    if is_main_process():  # others learn of it in `TextDataModule.setup`
        data.text.score_again(first.prepared, tokenizer)
    return data


def tested(path: Path | None, model: LanguageModel, data: TextDataModule) -> Tested | None:
    """What the last test of a model found; nothing where no batch was evaluated."""
    if model.evaluation is None or model.window_scores is None:
        return None
    windows, split, report = data.eval_windows(), data.prepared.validation, data.prepared.report
    scored = Scored(
        model.window_scores,
        windows.document,
        split.source[windows.document],
        report.sources,
        data.max_length,
        report.named,
        report.named_of_source if report.named else None,
    )
    keeps = data.prepared.report.keeps_text
    return Tested(str(path), model.evaluation, scored, data.eval_overlap, keeps)


def text_of(data: TextDataModule) -> dict[str, Any]:
    """Which text was evaluated, for JSON."""
    prepared = data.prepared
    size = prepared.report.splits["validation"]
    return {
        "text": prepared.report.title,
        "data": prepared.key,
        "held_out_bytes": size.bytes,
        "unknown_tokens": size.unknown,
    }
