"""The `tokenizer` command: train one on text, adopt a foreign one, or look at one."""

import inspect
import shlex
from pathlib import Path
from typing import Any

from lightning_embed.bar import bar
from lightning_embed.commands.no_effect import WithoutEffect, note_without_effect
from lightning_embed.console import say
from lightning_embed.errors import UserError, writing
from lightning_embed.interrupts import heeded_later
from lightning_embed.sources.corpus import choose_source
from lightning_embed.sources.formats import Format
from lightning_embed.sources.source import About, Source, counted
from lightning_embed.sources.texts import Kind
from lightning_embed.tokens.lossy import losses
from lightning_embed.tokens.reading import read
from lightning_embed.tokens.tokenizer import TextTokenizer
from lightning_embed.tokens.trained import say_stopping


def _from_nowhere(options: dict[str, Any]) -> bool:
    """Whether no tokenizer is trained here."""
    return options["adopt"] is not None or options["show"] is not None


GIVEN_IN_VAIN = (
    *(
        WithoutEffect(option, _from_nowhere, "nothing is trained with --adopt or --show")
        for option in (
            *("files", "text_column", "format", "document", "separator"),
            *("vocab_size", "characters", "portable"),
        )
    ),
    WithoutEffect("output", lambda options: options["show"] is not None, "--show writes nothing"),
    WithoutEffect(
        "vocab_size",
        lambda options: options["characters"] and not _from_nowhere(options),
        "--characters has an id for each",
    ),
    WithoutEffect(
        "portable",
        lambda options: options["characters"] and not _from_nowhere(options),
        "llama.cpp has no tokenizer of characters",
    ),
)


def tokenizer(
    adopt: str | None = None,
    show: str | None = None,
    files: str | list[str] | None = None,
    text_column: str = "text",
    vocab_size: int = 4096,
    characters: bool = False,
    portable: bool = False,
    output: str = "tokenizer.json",
    text: str | None = None,
    format: Format | None = None,
    document: Kind = "file",
    separator: str | None = None,
) -> None:
    """Train a tokenizer on text (the standard library's source by default), adopt one, or show one.

    Args:
        adopt: a foreign tokenizer (tokenizer.json, folder or Hub name) to give our four ids.
        show: a tokenizer.json to look at; nothing is written.
        files: a local file, glob or folder to train on, or a list of them; `-` is standard input.
        text_column: where rows keep the text: a column, or a dotted path to a nested one.
        vocab_size: ids of a trained BPE at most.
        characters: one id per character instead of a BPE.
        portable: a BPE that gives the same ids in llama.cpp, as `--data.tokenizer bpe-portable`.
        output: where the tokenizer is written.
        text: a text to show the pieces of.
        format: of the files, whatever their suffixes say.
        document: what a document is in text: the file, a line, a paragraph, or what is between
            separators.
        separator: text that separates documents, and is part of none.
    """
    note_without_effect(GIVEN_IN_VAIN, locals(), _default)
    if adopt is not None and show is not None:
        raise UserError("give --adopt or --show, not both")
    if show is not None:
        made = TextTokenizer.load(show)
    else:
        if Path(output).exists():
            raise UserError(f"{output} exists already; give another --output")
        made = (
            TextTokenizer.adopt(adopt)
            if adopt
            else _trained(
                choose_source(
                    files,
                    text_column=text_column,
                    format=format,
                    document=document,
                    separator=separator,
                ),
                vocab_size,
                characters,
                portable,
            )
        )
        with writing(Path(output).absolute(), "--output"):
            made.save(output)
        say("written", f"{output}; train with {shlex.join(['--data.tokenizer', output])}")
    say("ids", f"{made.vocab_size:,}: <s>={made.bos_id} <pad>={made.pad_id} </s>={made.eos_id}")
    if not characters and (lost := losses(made)):
        say("note", f"text does not come back whole from its tokens: it loses {', '.join(lost)}")
    if text is not None:
        say(
            "pieces",
            " | ".join(made.text_of(number) for number in made.encode(text)),
        )


def _default(option: str) -> Any:
    return inspect.signature(tokenizer).parameters[option].default


def _trained(source: Source, vocab_size: int, characters: bool, portable: bool) -> TextTokenizer:
    documents = read(source, About())
    with bar("training the tokenizer") as advance, heeded_later(say_stopping) as signals:
        shown = counted(documents, advance)
        texts = signals.until(document.text for document in shown if not document.held_out)
        if characters:
            return TextTokenizer.characters(texts)
        made = TextTokenizer.train(texts, vocab_size, portable=portable)
    if made.vocab_size < vocab_size:
        say("note", f"the text supports {made.vocab_size:,} ids, not {vocab_size:,}")
    return made
