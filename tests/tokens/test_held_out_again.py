"""A text that was evaluated, given back from what is kept of it."""

from pathlib import Path

import pytest

from lightning_embed.errors import UserError
from lightning_embed.sources.files import FilesCorpus
from lightning_embed.sources.source import About
from lightning_embed.tokens.held_out_again import HeldOutAgain
from lightning_embed.tokens.prepared import Prepared, open_prepared, prepare
from lightning_embed.tokens.reading import read

TEXTS = {"a.txt": "naïve café\n\n", "b.txt": " 中文 <pad></s> 🙂", "c.txt": "a\r\nb\tc"}


def prepared(folder: Path, tokenizer: str) -> Prepared:
    for name, text in TEXTS.items():
        (folder / name).write_bytes(text.encode())
    (folder / "long.txt").write_text("some other text to learn letters from. " * 100)
    long = FilesCorpus((str(folder / "long.txt"),))
    made = prepare(long, folder / "cache", tokenizer=tokenizer, vocab_size=None)
    named = FilesCorpus(tuple(str(folder / name) for name in TEXTS), whole=True)
    tokens = open_prepared(made).tokenizer
    return open_prepared(prepare(named, folder / "cache", tokenizer=tokens, vocab_size=None))


@pytest.mark.parametrize("kept", [True, False])
def test_documents_are_the_same_byte_for_byte(tmp_path: Path, kept: bool) -> None:
    scored = prepared(tmp_path, "bpe")
    if not kept:
        scored.validation.text_file.unlink()
    about = About()
    found = list(read(HeldOutAgain(scored), about))
    assert [(d.source, d.text) for d in found] == list(TEXTS.items())
    assert all(d.held_out for d in found) and about.title == scored.report.title


def test_a_text_that_is_lost_is_not_guessed(tmp_path: Path) -> None:
    """Characters that the tokenizer does not know are in its tokens no more."""
    scored = prepared(tmp_path, "characters")
    scored.validation.text_file.unlink()
    with pytest.raises(UserError, match="name it with --files"):
        list(HeldOutAgain(scored).documents(About()))
