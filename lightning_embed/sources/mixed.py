"""A source: several named ones, each with its own split, as one corpus.

Documents come one at a time from the source that has given least training text so far, so that the
beginning of the corpus, which a tokenizer is trained on, is made of equal parts of all of them, and
of all of a small one. How much of each an epoch has is no matter of the corpus: see
`data/mixture.py`.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property

from lightning_embed.errors import UserError
from lightning_embed.sources.source import About, Document, Source, fingerprint_of


class Mixed:
    """Sources by their names, which stand before the names of their documents: `books: a.txt`.

    Args:
        sources: by name.
    """

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self.sources = dict(sources)

    @cached_property
    def fingerprint(self) -> str:
        found = [[name, source.fingerprint] for name, source in self.sources.items()]
        return fingerprint_of("mixed", found)

    @property
    def name_of_text(self) -> str:
        """Where each of them has one; else an AttributeError, as of a source that has none."""
        names = {name: source.name_of_text for name, source in self.sources.items()}  # type: ignore[attr-defined]
        return "--data.sources " + "; ".join(f"{name}: {text}" for name, text in names.items())

    @property
    def n_bytes(self) -> int:
        """Of those that know."""
        return sum(getattr(source, "n_bytes", 0) for source in self.sources.values())

    def beginning(self, characters: int) -> str:
        """About so much of the text, in equal parts."""
        known = [x for x in self.sources.values() if hasattr(x, "beginning")]
        return "\n".join(source.beginning(characters // len(known)) for source in known)

    def documents(self, about: About) -> Iterator[Document]:
        abouts = {name: About() for name in self.sources}
        running = {
            name: _told_by_name(name, source.documents(abouts[name]))
            for name, source in self.sources.items()
        }
        given = dict.fromkeys(running, 0)  # characters of training text
        held_out = dict.fromkeys(running, 0)
        while running:
            name = min(running, key=given.__getitem__)
            for document in running[name]:
                (held_out if document.held_out else given)[name] += len(document.text)
                yield document._replace(source=name_in(name, document.source))
                if document.ends:
                    break
            else:
                del running[name]
        for name, its in abouts.items():
            if not given[name] and not its.whole:
                raise UserError(f"--data.sources {name}: {its.title} leaves no text to train on")
            about.counts += its.counts
            about.notes += [f"{name}: {note}" for note in its.notes]
            if not held_out[name]:
                about.notes.append(f"{name}: nothing is held out")
        about.title = "; ".join(f"{name}: {its.title}" for name, its in abouts.items())
        about.whole = all(its.whole for its in abouts.values())
        about.named = list(self.sources)


def name_in(name: str, document: str) -> str:
    return f"{name}: {document}"


def name_of(document: str) -> str:
    """The named source of a document's name."""
    return document.partition(": ")[0]


def _told_by_name(name: str, documents: Iterator[Document]) -> Iterator[Document]:
    """What is wrong with a source is told with its name."""
    try:
        yield from documents
    except UserError as error:
        raise UserError(f"--data.sources {name}: {error}") from error
