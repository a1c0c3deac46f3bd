"""One pass over a text, from its source to the files of a prepared folder.

1. read       documents of both splits as the source has them, long ones in parts (`reading.py`)
2. tokenizer  if one is to be trained, documents wait in memory until the text it is trained on is
              complete (`trained.py`)
3. encode     a few batches ahead, in threads, of which the `tokenizers` library starts more; parts
              are cut where the tokens are those of the whole document (`joints.py`)
4. write      each split's ids, lengths, bytes, sources (`split_writer.py`), made safe after each
              shard of text (`work.py`)
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from lightning_embed.bar import bar
from lightning_embed.console import say, short
from lightning_embed.sources.source import About, Document, Source, drained
from lightning_embed.tokens.joints import CHANGED, CUTS, fitted
from lightning_embed.tokens.lock import Lock
from lightning_embed.tokens.lossy import Lossy
from lightning_embed.tokens.reading import read
from lightning_embed.tokens.split_writer import SplitWriter
from lightning_embed.tokens.token_files import Report
from lightning_embed.tokens.tokenizer import TextTokenizer
from lightning_embed.tokens.trained import TokenizerChoice, given_tokenizer, size_of, with_tokenizer
from lightning_embed.tokens.work import SHARD, Progress, Work, skip

DOCUMENTS_AT_ONCE = 500  # more are encoded no faster, and what they leave is freed later
CHARACTERS_AT_ONCE = 4_000_000  # an encoding takes about 25 bytes of memory for each
BATCHES_AHEAD = 3  # encoded while earlier ones are written
KEEP_TEXT_UP_TO = 64_000_000  # bytes of training text; xz looks no further back than 64 MiB


def write(
    source: Source,
    work: Work,
    tokenizer: TokenizerChoice,
    vocab_size: int | None,
    key: str,
    lock: Lock | None,
) -> None:
    """One pass over the text, from the source to the files."""
    made, progress, about, documents = _begun(source, work, tokenizer, vocab_size)
    splits = progress.splits
    with (
        SplitWriter(work.folder / "train", made.unk_id, splits.get("train")) as train,
        SplitWriter(
            work.folder / "validation", made.unk_id, splits.get("validation")
        ) as validation,
        bar("encoding", about.counts["bytes"] if about.complete else size_of(source)) as advance,
    ):
        parts = fitted(documents, partial(made.encode, begins=False), about.counts)
        skip(parts, progress, advance)
        safe, lossy = progress.size, Lossy(made, Counter(progress.decoded))
        for batch, ids in _encoded(parts, made):
            lossy.look(batch, ids)
            texts = [document.text.encode() for document in batch]
            for writer, held_out in ((train, False), (validation, True)):
                of = [n for n, document in enumerate(batch) if document.held_out is held_out]
                writer.write([batch[n] for n in of], [texts[n] for n in of], [ids[n] for n in of])
            if train.total_bytes > KEEP_TEXT_UP_TO:
                train.drop_text()
                validation.drop_text()
            progress.add(texts)
            advance(sum(map(len, texts)))
            if progress.size - safe >= SHARD:
                safe = progress.size
                progress.splits = {"train": train.safe(), "validation": validation.safe()}
                progress.decoded = dict(lossy.counts)
                progress.mark = about.last_mark(progress.items)
                work.save(progress)
                if lock is not None:
                    lock.tell(done=safe, of=size_of(source)())
        if about.counts[CHANGED]:
            about.notes.append(
                f"long documents are encoded in parts; at {about.counts[CHANGED]:,} of"
                f" {about.counts[CUTS]:,} cuts tokens may differ from those of the whole"
            )
        if lossy.note:
            about.notes.append(lossy.note)
        names = {name: n for n, name in enumerate(train.names | validation.names)}
        sizes = {"train": train.finish(names), "validation": validation.finish(names)}
    Report(
        key=key,
        title=about.title,
        counts=dict(sorted((dict(about.counts) | lossy.found).items())),  # the same after a kill
        notes=about.notes,
        vocabulary=made.vocab_size,
        vocabulary_asked=progress.vocabulary_asked,
        splits=sizes,
        sources=list(names),
        named=about.named,
    ).save(work.folder)


def _begun(
    source: Source, work: Work, tokenizer: TokenizerChoice, vocab_size: int | None
) -> tuple[TextTokenizer, Progress, About, Iterator[Document]]:
    """The tokenizer, what is done already, and the documents of the source from its mark on."""
    progress = work.begun()
    if progress is not None:
        try:
            made = TextTokenizer.load(str(work.folder / "tokenizer.json"))
        except (OSError, ValueError):
            progress = None
    if progress is not None:
        if progress.items:
            say("tokens", f"go on from {short(progress.size)}B of text, which a run before did")
        about = About(begin=progress.mark)
        return made, progress, about, read(source, about)
    work.empty()
    given = given_tokenizer(tokenizer)
    if given is not None:
        about = About()
        documents, progress = read(source, about), Progress()
        made = given
        made.save(work.folder / "tokenizer.json")
    else:

        def keep(made: TextTokenizer, asked: int | None) -> None:  # so that it is not trained again
            made.save(work.folder / "tokenizer.json")
            work.save(Progress(asked))

        made, asked, about, documents = with_tokenizer(source, str(tokenizer), vocab_size, keep)
        progress = Progress(asked)
    return made, progress, about, documents


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
