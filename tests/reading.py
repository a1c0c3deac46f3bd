"""Reading a whole source, as the tests of all sources do."""

from collections import Counter
from dataclasses import dataclass, field

from lightning_embed.sources.source import About, Source
from lightning_embed.tokens.reading import read


@dataclass
class Corpus:
    """Texts and sources of both splits, and what is told of them."""

    train: list[str] = field(default_factory=list)
    validation: list[str] = field(default_factory=list)
    train_sources: list[str] = field(default_factory=list)
    validation_sources: list[str] = field(default_factory=list)
    title: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        return [*self.train, *self.validation]


def read_all(source: Source) -> Corpus:
    about = About()
    corpus = Corpus()
    for text, name, held_out, begins, _ in read(source, about):
        texts = corpus.validation if held_out else corpus.train
        if begins:
            texts.append(text)
            (corpus.validation_sources if held_out else corpus.train_sources).append(name)
        else:
            texts[-1] += text
    corpus.title, corpus.counts, corpus.notes = about.title, about.counts, about.notes
    return corpus
