"""Which source of text is meant: the one place that knows them all.

Each source is in a file of its own: `stdlib.py`, `files.py`, `hub.py`. What they have in common is
in `source.py`; `prepared.py` turns a source's documents into tokens.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

from lightning_embed.errors import UserError
from lightning_embed.sources.files import WHOLE_FILES, FilesCorpus
from lightning_embed.sources.formats import Format
from lightning_embed.sources.hub import HubCorpus
from lightning_embed.sources.source import About, Document, Source, fingerprint_of
from lightning_embed.sources.stdlib import StdlibCorpus
from lightning_embed.sources.texts import DocumentRule, Kind


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
        return replace(source, whole=True)
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
) -> Source:
    """The source that was asked for; the standard library's own code when none was.

    Raises:
        UserError: more than one was asked for, or what concerns another kind of source.
    """
    given = {"files": files, "hub": hub, "source": source}
    named = [f"--data.{flag} {value}" for flag, value in given.items() if value]
    if len(named) > 1:
        raise UserError(f"give only one of {' and '.join(named)}")
    rule = DocumentRule(document, separator)
    if files:
        names = (files,) if isinstance(files, str) else tuple(files)
        return FilesCorpus(names, text_column, rule=rule, format=format)
    if format or rule != WHOLE_FILES:
        flag = f"--data.format {format}" if format else f"--data.document {document}"
        raise UserError(f"{flag} is for files: name them with --data.files")
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
