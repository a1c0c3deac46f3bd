"""Which source of text is meant: the one place that knows them all.

Each source is in a file of its own: `stdlib.py`, `files.py`, `hub.py`; `mixed.py` is of several
together. What they have in common is in `source.py`; `prepared.py` turns a source's documents into
tokens.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from functools import cached_property
from typing import Any, Literal, get_args, get_origin, get_type_hints

from lightning_embed.errors import UserError
from lightning_embed.sources.files import WHOLE_FILES, FilesCorpus
from lightning_embed.sources.formats import Format
from lightning_embed.sources.held_out import AS_EVER, SHARE, SplitKind, SplitRule
from lightning_embed.sources.hub import HubCorpus
from lightning_embed.sources.mixed import Mixed
from lightning_embed.sources.source import About, Document, Source, fingerprint_of
from lightning_embed.sources.stdlib import StdlibCorpus
from lightning_embed.sources.texts import DocumentRule, Kind

NAME = re.compile(r"[\w-]{1,40}")


class Whole:
    """Another source's text with all of it held out."""

    def __init__(self, source: Source) -> None:
        self.source = source

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint_of("whole", self.source.fingerprint)

    def documents(self, about: About) -> Iterator[Document]:
        for document in self.source.documents(about):
            yield document._replace(held_out=True)
        about.whole = True


def to_score(source: Source) -> Source:
    """What is scored of a text that a model was not trained on: all of it, but a data set of the
    Hub and Python's library keep their own split, which makes figures comparable."""
    if isinstance(source, FilesCorpus):
        return replace(source, validation=(), split=AS_EVER, whole=True)
    if isinstance(source, Mixed):
        return Mixed({name: to_score(its) for name, its in source.sources.items()})
    return source if isinstance(source, HubCorpus | StdlibCorpus) else Whole(source)


def choose_source(
    files: str | list[str] | None = None,
    hub: str | None = None,
    hub_config: str | None = None,
    text_column: str = "text",
    source: Source | None = None,
    format: Format | None = None,
    document: Kind = "file",
    separator: str | None = None,
    hub_split: str = "train",
    hub_revision: str | None = None,
    hub_streaming: bool | None = None,
    validation: str | list[str] | None = None,
    validation_share: float = SHARE,
    split: SplitKind = "auto",
    sources: Mapping[str, Any] | None = None,
) -> Source:
    """The source that was asked for; the standard library's own code when none was.

    Raises:
        UserError: more than one was asked for, or what concerns another kind of source.
    """
    given = {"files": files, "hub": hub, "source": source, "sources": sources}
    named = [f"--data.{flag} {value}" for flag, value in given.items() if value]
    if len(named) > 1:
        raise UserError(f"give only one of {' and '.join(named)}")
    rule = DocumentRule(document, separator)
    split_rule, held_out = SplitRule(split, validation_share), _several(validation)
    if files:
        return FilesCorpus(
            _several(files),
            text_column,
            rule=rule,
            format=format,
            split=split_rule,
            validation=held_out,
        )
    of_files = {
        f"format {format}": format,
        f"document {document}": rule != WHOLE_FILES,
        f"validation {validation}": validation,
        f"validation_share {validation_share}": validation_share != SHARE,
        f"split {split}": split != AS_EVER.kind,
    }
    for flag, is_given in of_files.items():
        if is_given:
            if sources is not None:
                raise UserError(_of_one_text(flag))
            raise UserError(f"--data.{flag} is for files: name them with --data.files")
    if sources is not None:
        if text_column != "text":
            raise UserError(_of_one_text(f"text_column {text_column}"))
        return _several_sources(sources)
    if text_column != "text" and not hub:
        raise UserError(f"--data.text_column {text_column} needs --data.files or --data.hub")
    if source:
        return source
    if hub:
        return HubCorpus(
            hub,
            hub_config,
            text_column,
            hub_split,
            revision=hub_revision,
            streaming=hub_streaming,
        )
    return StdlibCorpus()


def _several_sources(named: Mapping[str, Any]) -> Mixed:
    """Several sources by name, each as the options of `choose_source`, or a source itself.

    Raises:
        UserError: a name or an option that cannot be, or what `choose_source` refuses.
    """
    found: dict[str, Source] = {}
    for name, options in named.items():
        flag = f"--data.sources.{name}"
        if not NAME.fullmatch(str(name)):
            raise UserError(f"{flag}: a source's name has letters, digits, - and _ alone")
        if hasattr(options, "documents"):
            found[name] = options
            continue
        if not isinstance(options, Mapping):
            raise UserError(
                f"{flag} is {options!r}: give its options, for example {{files: {name}/}}"
            )
        _require_options(flag, options)
        try:
            found[name] = choose_source(**options)
        except UserError as error:
            raise UserError(f"--data.sources {name}: {error}") from error
    if not found:
        raise UserError("--data.sources is empty: give for example {books: {files: books/}}")
    return Mixed(found)


def _require_options(flag: str, options: Mapping[str, Any]) -> None:
    kinds = get_type_hints(choose_source)
    known = [option for option in kinds if option not in ("source", "sources", "return")]
    for option, value in options.items():
        if option not in known:
            near = get_close_matches(str(option), known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else f": it has {', '.join(known)}"
            raise UserError(f"{flag} has no option {option}{hint}")
        if not _is_a(value, kinds[option]):
            raise UserError(f"{flag}.{option} cannot be {value!r}: give {_words(kinds[option])}")


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotated type."""
    origin, of = get_origin(kind), get_args(kind)
    if origin is Literal:
        return value in of
    if origin is list:
        return isinstance(value, list) and all(_is_a(each, of[0]) for each in value)
    if of:
        return any(_is_a(value, each) for each in of)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind)


def _words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(get_args(kind))
    if get_origin(kind) is list:
        return "a list of texts"
    if of := [each for each in get_args(kind) if each is not type(None)]:
        return " or ".join(map(_words, of))
    return {str: "a text", float: "a number"}[kind]


def _of_one_text(flag: str) -> str:
    option = flag.partition(" ")[0]
    return f"--data.{flag} is of one text: give it within --data.sources, NAME: {{{option}: ...}}"


def _several(names: str | list[str] | None) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())
