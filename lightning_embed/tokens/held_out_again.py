"""A source: the held-out documents of a prepared corpus, to be put into another tokenizer's tokens.

Two models with different tokenizers are compared on exactly the same documents, also where their
files have changed or gone since. The text is the one kept beside the tokens, or the tokens decoded.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from lightning_embed.errors import UserError
from lightning_embed.sources.source import About, Document, fingerprint_of, utf8_size
from lightning_embed.tokens.prepared import Prepared


@dataclass(frozen=True)
class HeldOutAgain:
    """All documents that `scored` holds out, held out again.

    Raises (from `documents`) UserError where neither text nor tokens give them back: a tokenizer
    that changes letters, or lacks some.
    """

    scored: Prepared

    @property
    def fingerprint(self) -> str:
        return fingerprint_of("held out of", self.scored.key)

    def documents(self, about: About) -> Iterator[Document]:
        about.title, about.whole = self.scored.report.title, True
        about.named = self.scored.report.named
        names, split = self.scored.report.sources, self.scored.validation
        for number, text in enumerate(self.texts()):
            if utf8_size(text) != split.n_bytes[number]:
                raise UserError(
                    f"the text of {about.title} is not kept and its tokens do not give it back:"
                    " name it with --files"
                )
            yield Document(text, names[split.source[number]], held_out=True)

    def texts(self) -> Iterator[str]:
        """As they are kept, or as their tokens say, unchecked."""
        split, tokenizer = self.scored.validation, self.scored.tokenizer
        if split.text_file.is_file():
            with open(split.text_file, "rb") as file:
                for size in split.n_bytes.tolist():
                    yield file.read(size).decode()
            return
        for begin, end in zip(split.offsets[:-1], split.offsets[1:], strict=True):
            yield tokenizer.decode(split.tokens[begin + 1 : end - 1])
