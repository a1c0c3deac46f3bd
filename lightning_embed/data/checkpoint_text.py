"""Which tokens a data module serves: those of its own text, or of what a checkpoint goes on with or
is scored on.

A run goes on with the tokens that it began with, also where the text has changed since; a score is
of what the checkpoint's own run held out, or of all of another text, in the tokens of the
checkpoint's tokenizer.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

from lightning_embed.console import say
from lightning_embed.errors import UserError
from lightning_embed.sources.corpus import to_score
from lightning_embed.sources.source import Source
from lightning_embed.sources.stdlib import StdlibCorpus
from lightning_embed.tokens.held_out_again import HeldOutAgain
from lightning_embed.tokens.prepared import (
    Prepared,
    damage,
    data_key,
    open_prepared,
    prepare,
)
from lightning_embed.tokens.token_files import is_prepared, shared_documents
from lightning_embed.tokens.tokenizer import TextTokenizer
from lightning_embed.tokens.trained import TRAINED, TokenizerChoice


class CheckpointText:
    """A text, how it becomes tokens, and the folder with the tokens that are in use.

    Args:
        source: the text that was asked for.
        cache_dir: the folder of all prepared folders.
        tokenizer: see `TextDataModule`.
        vocab_size: ids of a trained BPE.

    Attributes:
        folder: of the tokens, once they are known.
        is_other: evaluation is of another text than the checkpoint was trained on.
        trained_on: documents of that text which training saw, where that is known.
    """

    def __init__(
        self, source: Source, cache_dir: Path, tokenizer: str, vocab_size: int | None
    ) -> None:
        self.source, self.cache_dir = source, cache_dir
        self.tokenizer_name, self.vocab_size = tokenizer, vocab_size
        self._tokenizer: TokenizerChoice = tokenizer
        self.folder: Path | None = None
        self.is_other = False
        self.trained_on = 0

    def prepare(self) -> None:
        """Make the tokens, or find them."""
        if self.folder is None:
            self.folder = prepare(self.source, self.cache_dir, **self.tokenizer_asked)

    def open_from(self, folder: Path) -> None:
        """Use the tokens of this folder."""
        if folder != self.folder:
            self.folder = folder
            self.__dict__.pop("prepared", None)

    @cached_property
    def prepared(self) -> Prepared:
        """The tokens, prepared on first use."""
        self.prepare()
        assert self.folder is not None
        return open_prepared(self.folder)

    @property
    def tokenizer_asked(self) -> dict[str, Any]:
        """What decides the tokens beside the text."""
        return {"tokenizer": self._tokenizer, "vocab_size": self.vocab_size}

    def take_tokenizer(self, tokenizer: TextTokenizer) -> None:
        """Use this one: it is what the run keeps under the name of `--data.tokenizer`."""
        self._tokenizer = tokenizer

    @property
    def asked(self) -> dict[str, Any]:
        """How the tokens were asked for: the text by its name, whatever is in it now."""
        by_name = {"tokenizer": self.tokenizer_name, "vocab_size": self.vocab_size}
        asked = {"source": type(self.source).__name__, **by_name}
        name = getattr(self.source, "name_of_text", None)
        return asked if name is None else {**asked, "text": name}

    def keep_tokens(self, state_dict: dict[str, Any]) -> None:
        """If the text was changed or removed since, use the tokens of before, where they are kept:
        Python's library is patched, notes grow, and a run began with what there was then."""
        before = self.cache_dir / state_dict["data"]
        if self.is_other or "text" not in self.asked or state_dict["asked"] != self.asked:
            return
        if not is_prepared(before) or before == self.folder:
            return
        change = "has changed"
        try:
            now = (self.folder or Path(data_key(self.source, **self.tokenizer_asked))).name
        except FileNotFoundError:
            now, change = "", "is gone"
        if now == before.name:
            return
        fault = damage(before)
        if fault:
            say("warning", f"the tokens of before, {before}, are damaged ({fault}): not used")
            return
        name = self.asked["text"]
        if self.tokenizer_name not in TRAINED:
            name += f" or --data.tokenizer {self.tokenizer_name}"
        say("note", f"{name} {change}; its tokens of before are used ({before})")
        self.open_from(before)

    def score_with(self, state_dict: dict[str, Any], tokenizer_json: str | None) -> None:
        """Take the text that a checkpoint is to be scored on: what its own run held out, or, of any
        other text, all of it, in the tokens of the checkpoint's own tokenizer.

        Raises:
            UserError: no text was named and the run's own is not kept; or `--data.tokenizer` names
                another tokenizer.
        """
        if tokenizer_json is None:
            return  # not written by `fit`
        self.keep_tokens(state_dict)
        if self.folder is not None and self.folder.name == state_dict["data"]:
            return
        tokenizer = TextTokenizer.from_json(tokenizer_json)
        if self.tokenizer_name not in TRAINED:
            named = TextTokenizer.load(self.tokenizer_name)
            if named.fingerprint != tokenizer.fingerprint:
                return  # `TextDataModule.go_on_with` refuses
        own, asked = self.cache_dir / state_dict["data"], state_dict["asked"]
        trained = asked["tokenizer"] in TRAINED
        then: dict[str, Any] = {
            "tokenizer": asked["tokenizer"] if trained else tokenizer,
            "vocab_size": asked["vocab_size"],
        }
        unnamed = isinstance(self.source, StdlibCorpus) and asked["source"] != "StdlibCorpus"
        if unnamed and not is_prepared(own):
            raise UserError(
                f"the tokens this checkpoint was trained on are not in {own}: name its text, or"
                " another one, with --data.files"
            )
        self.is_other = not unnamed and data_key(self.source, **then) != own.name
        if self.is_other:
            text, then = to_score(self.source), {"tokenizer": tokenizer, "vocab_size": None}
            self.open_from(prepare(text, self.cache_dir, **then))
        else:
            self.open_from(own if unnamed else prepare(self.source, self.cache_dir, **then))

    def score_all_of(self, source: Source, tokenizer: TextTokenizer) -> None:
        """Take all of a text, whatever the checkpoint was trained on, in a tokenizer's tokens."""
        self.is_other = True
        self.open_from(prepare(source, self.cache_dir, tokenizer=tokenizer, vocab_size=None))

    def note_trained_on(self, state_dict: dict[str, Any]) -> None:
        """Count documents of another text that a checkpoint was trained on, where its tokens are
        still at hand."""
        folder = self.cache_dir / state_dict["data"]
        if is_prepared(folder) and not damage(folder):
            own = open_prepared(folder)
            if own.tokenizer.fingerprint == self.prepared.tokenizer.fingerprint:
                self.trained_on = shared_documents(self.prepared.validation, own.train)

    def score_again(self, scored: Prepared, tokenizer: TextTokenizer) -> None:
        """Take the text that was evaluated as `scored` in the tokens of another tokenizer, document
        by document.

        Raises:
            UserError: the text cannot be had from its tokens.
        """
        if tokenizer.fingerprint == scored.tokenizer.fingerprint:
            self.is_other = True
            self.open_from(scored.path)
        else:
            self.score_all_of(HeldOutAgain(scored), tokenizer)
