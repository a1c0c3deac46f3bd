"""A corpus as tokens on disk: made in one pass over its text, found again by fingerprint.

    <cache_dir>/<key>/   the files of `token_files.py`

The key hashes the source's fingerprint, the tokenizer's and the vocabulary asked for, so a changed
text or tokenizer never finds a stale folder; window length is no part of it, because windows are
cut when batches are planned. A folder appears under its name only when it is whole, and is looked
through when it is found again: a damaged one is made anew (`checksums.py`).

1. read       documents of both splits as the source has them, long ones in parts (`reading.py`)
2. tokenizer  if one is to be trained, documents wait in memory until the text it is trained on is
              complete (at most 100 million characters and a block of documents)
3. encode     a few batches ahead, in threads, of which the `tokenizers` library starts more; parts
              are cut where the tokens are those of the whole document (`joints.py`)
4. write      each split's ids, lengths, bytes, sources (`token_files.py`)
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from lightning_embed.atomic import sweep_orphans, work_folder
from lightning_embed.bar import bar
from lightning_embed.console import say, short
from lightning_embed.errors import UserError, one_line, writing
from lightning_embed.sources.source import About, Document, Source, counted, drained, utf8_size
from lightning_embed.tokens import checksums
from lightning_embed.tokens.joints import CHANGED, CUTS, fitted
from lightning_embed.tokens.lossy import Lossy
from lightning_embed.tokens.reading import read
from lightning_embed.tokens.token_files import SPLITS, Report, Split, SplitWriter, fits_together
from lightning_embed.tokens.tokenizer import TextTokenizer

TRAINED = ("bpe", "bpe-portable", "characters")  # kinds made here, all others are given
Named: TypeAlias = str | TextTokenizer

FORMAT = 1  # raise when the layout or the meaning of a file changes
DOCUMENTS_AT_ONCE = 500  # more are encoded no faster, and what they leave is freed later
CHARACTERS_AT_ONCE = 4_000_000  # an encoding takes about 25 bytes of memory for each
BATCHES_AHEAD = 3  # encoded while earlier ones are written
KEEP_TEXT_UP_TO = 64_000_000  # bytes of training text; xz looks no further back than 64 MiB

# Which text trains a tokenizer must never change: whole blocks of the train split's documents, from
# the first on, up to the block in which so many characters are exceeded.
TRAINING_CHARACTERS = 100_000_000
TRAINING_BLOCK = 2_000
HELD_CHARACTERS = 200_000_000  # of that text kept in memory, and used of a single document


@dataclass(frozen=True)
class Prepared:
    """An opened folder."""

    path: Path
    tokenizer: TextTokenizer
    train: Split
    validation: Split
    report: Report

    @property
    def key(self) -> str:
        return self.path.name


def default_cache_dir() -> Path:
    """The folder of all prepared folders where nobody names one."""
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # a container's user without an entry in its list of users
        raise UserError("this user has no home folder: say where with --data.cache_dir") from None
    return Path(base) / "lightning_embed"


def open_prepared(path: Path) -> Prepared:
    """Map a folder that `prepare` made; costs no reading of its tokens."""
    tokenizer = TextTokenizer.load(str(path / "tokenizer.json"))
    train, validation = (Split.open(path / name, tokenizer.id_type) for name in SPLITS)
    return Prepared(path, tokenizer, train, validation, Report.load(path))


def suggested_vocabulary(n_bytes: int) -> int:
    """A vocabulary that fits a text: the power of two next to one id for 2,000 bytes."""
    return int(2 ** np.clip(np.round(np.log2(max(n_bytes, 1) / 2000)), 9, 15))


def data_key(source: Source, *, tokenizer: Named, vocab_size: int | None) -> str:
    """The name of the folder that `prepare` makes of the same arguments."""
    given = _given(tokenizer)
    identity = [FORMAT, source.fingerprint, "" if given else tokenizer, vocab_size]
    identity.append(given.fingerprint if given else "")
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def prepare(source: Source, cache_dir: Path, *, tokenizer: Named, vocab_size: int | None) -> Path:
    """The folder of `source`'s tokens, made now unless it is there.

    Args:
        source: the corpus.
        cache_dir: folder of all prepared folders.
        tokenizer: one of `TRAINED` to train it on the training part, else a file or Hub name, or a
            tokenizer itself.
        vocab_size: ids of a trained BPE at most; None takes what suits the size of the text.

    Raises:
        UserError: the folder cannot be written, or the text cannot be used.
    """
    key = data_key(source, tokenizer=tokenizer, vocab_size=vocab_size)
    target = cache_dir / key
    with writing(cache_dir, "--data.cache_dir", lambda: _room(source, cache_dir, tokenizer)):
        sweep_orphans(cache_dir)
        if target.exists():
            fault = damage(target)
            if not fault:
                return target
            say("warning", f"prepared tokens {target} are damaged ({fault}): made anew")
            # a run that has it open keeps its files, and another may remove it at the same time
            with work_folder(target) as aside, suppress(FileNotFoundError):
                os.replace(target, aside / key)
        with work_folder(target) as work:
            _write(source, work, tokenizer, vocab_size, key)
            checksums.note_checksums(work)
            try:
                os.rename(work, target)
            except OSError:  # another process was first: its folder holds the same
                if damage(target):
                    raise
    return target


def damage(folder: Path) -> str:
    """What is wrong with a prepared folder, in a few words; nothing if it is whole."""
    if (folder / checksums.CHECKSUMS).exists():
        return checksums.damage(folder)
    try:  # of version 0.1
        found = open_prepared(folder)
        for name, split in zip(SPLITS, (found.train, found.validation), strict=True):
            if not fits_together(split, len(found.report.sources)):
                return f"the files in {name} do not belong together"
    except (OSError, ValueError, TypeError, AttributeError, LookupError, EOFError) as error:
        return one_line(error)
    return ""


def _room(source: Source, cache_dir: Path, tokenizer: Named) -> str:
    """How much room the tokens need and there is, for who is told that the disk is full."""
    text = _size(source)()
    if not text:
        return ""
    tokens = text * 2 if tokenizer == "characters" else text // 2  # of two bytes, for four of text
    needed = tokens + (text if text <= KEEP_TEXT_UP_TO else 0)
    free = shutil.disk_usage(cache_dir).free
    return f", about {short(needed)}B are needed and {short(free)}B are free"


def _size(source: Source) -> Callable[[], int]:
    """Asks for the bytes of a text, which may take reading it; 0 where nobody knows."""
    return lambda: getattr(source, "n_bytes", 0)


def _given(tokenizer: Named) -> TextTokenizer | None:
    if isinstance(tokenizer, TextTokenizer):
        return tokenizer
    return None if tokenizer in TRAINED else TextTokenizer.load(tokenizer)


def _write(
    source: Source, folder: Path, tokenizer: Named, vocab_size: int | None, key: str
) -> None:
    """One pass over the text, from the source to the files."""
    made, asked = _given(tokenizer), None
    if made is not None:
        about = About()
        documents = read(source, about)
    else:
        made, asked, about, documents = _with_tokenizer(source, str(tokenizer), vocab_size)
    made.save(folder / "tokenizer.json")
    with (
        SplitWriter(folder / "train", made.unk_id) as train,
        SplitWriter(folder / "validation", made.unk_id) as validation,
        bar("encoding", about.counts["bytes"] if about.complete else _size(source)) as advance,
    ):
        encode, lossy = partial(made.encode, begins=False), Lossy(made, about.counts)
        for batch, ids in _encoded(fitted(documents, encode, about.counts), made):
            lossy.look(batch, ids)
            advance(sum(utf8_size(document.text) for document in batch))
            for writer, held_out in ((train, False), (validation, True)):
                chosen = [n for n, document in enumerate(batch) if document.held_out is held_out]
                writer.write([batch[n] for n in chosen], [ids[n] for n in chosen])
            if train.total_bytes > KEEP_TEXT_UP_TO:
                train.drop_text()
                validation.drop_text()
        if about.counts[CHANGED]:
            about.notes.append(
                f"long documents are encoded in parts; at {about.counts[CHANGED]:,} of"
                f" {about.counts[CUTS]:,} cuts tokens may differ from those of the whole"
            )
        if lossy.note:
            about.notes.append(lossy.note)
        names = {name: n for n, name in enumerate(train.names | validation.names)}
        splits = {"train": train.finish(names), "validation": validation.finish(names)}
    Report(
        key=key,
        title=about.title,
        counts=dict(about.counts),
        notes=about.notes,
        vocabulary=made.vocab_size,
        vocabulary_asked=asked,
        splits=splits,
        sources=list(names),
    ).save(folder)


def _with_tokenizer(
    source: Source, kind: str, vocab_size: int | None
) -> tuple[TextTokenizer, int | None, About, Iterator[Document]]:
    """A tokenizer trained on the beginning of a source; the vocabulary asked for, if that is a
    choice; and the whole source's documents, to be encoded now."""
    about = About()
    documents = read(source, about)
    training = training_part(documents)
    with bar("reading", _size(source)) as advance:
        held = deque(counted(_at_most(training, HELD_CHARACTERS), advance))
        beyond = list(islice(training, 1))
    # of a longer text the beginning suffices: the suggestion is as large as it can be
    size = sum(utf8_size(document.text) for document in held if not document.held_out)
    asked = vocab_size or suggested_vocabulary(size)
    with bar("training the tokenizer") as advance:
        shown = counted(chain(held, beyond, training), advance)
        made = trained_on((d.text for d in shown if not d.held_out), kind, asked)
    if beyond:  # too much to hold was read for the tokenizer alone, so it is all read again
        held.clear()
        about = About()
        documents = read(source, about)
    return made, None if kind == "characters" else asked, about, chain(drained(held), documents)


def trained_on(texts: Iterable[str], kind: str, vocab_size: int) -> TextTokenizer:
    """A tokenizer of a kind in `TRAINED`; of characters there are as many as the text has."""
    if kind == "characters":
        return TextTokenizer.characters(texts)
    return TextTokenizer.train(texts, vocab_size, portable=kind == "bpe-portable")


def training_part(documents: Iterable[Document]) -> Iterator[Document]:
    """The beginning of a corpus, up to the last document, or part of a document longer than may be
    held, that its tokenizer is trained on."""
    number = characters = own = 0
    for document in documents:
        yield document
        if not document.held_out:
            number += document.ends
            characters += len(document.text)
            own = len(document.text) + (0 if document.begins else own)
            if not document.ends and own > HELD_CHARACTERS:
                return
            is_full = document.ends and number % TRAINING_BLOCK == 0
            if is_full and characters > TRAINING_CHARACTERS:
                return


def _at_most(documents: Iterator[Document], characters: int) -> Iterator[Document]:
    """Documents until those of the training part have more than so many characters."""
    for document in documents:
        yield document
        characters -= 0 if document.held_out else len(document.text)
        if characters < 0:
            return


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch, room = list[Document](), CHARACTERS_AT_ONCE
    for document in documents:
        batch.append(document)
        room -= len(document.text)
        if len(batch) == DOCUMENTS_AT_ONCE or room <= 0:
            yield batch
            batch, room = [], CHARACTERS_AT_ONCE
    if batch:
        yield batch


def _encoded(
    documents: Iterable[Document], tokenizer: TextTokenizer
) -> Iterator[tuple[list[Document], list[np.ndarray]]]:
    """Documents and their ids, batch after batch, a few ahead: while Python reads and writes, the
    library's own threads encode."""
    with ThreadPoolExecutor(BATCHES_AHEAD) as pool:
        running: deque[tuple[list[Document], Future[Any]]] = deque()
        for batch in _batches(documents):
            texts = [document.text for document in batch]
            begins = [document.begins for document in batch]
            running.append((batch, pool.submit(tokenizer.encode_documents, texts, begins)))
            if len(running) > BATCHES_AHEAD:
                first, future = running.popleft()
                yield first, _inner_ends_off(first, future.result())
        for batch, future in drained(running):
            yield batch, _inner_ends_off(batch, future.result())


def _inner_ends_off(batch: list[Document], ids: list[np.ndarray]) -> list[np.ndarray]:
    """Without <s> and </s> between the parts of a document."""
    return [
        its[0 if document.begins else 1 : None if document.ends else -1]
        for document, its in zip(batch, ids, strict=True)
    ]
