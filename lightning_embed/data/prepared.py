"""Tokenised text on disk: made once, found again by fingerprint, memory-mapped.

Knows: the folder's layout, when a folder may be reused, what was counted while making it. Leaves to
others: where text comes from (`corpus.py`), windows and batches (`batching.py`).

    <cache_dir>/<key>/tokenizer.json  report.json
                      {train,validation}/tokens.bin  offsets.npy  n_bytes.npy  source.npy
                                         text.bin (small corpora: what xz is measured on)

The key hashes the corpus' fingerprint, the tokenizer's and the vocabulary asked for, so a changed
text or tokenizer never finds a stale folder; window length is no part of it, because windows are
cut when batches are planned. A folder appears under its name only when it is whole.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lightning_embed.data.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from datasets import Dataset

    from lightning_embed.data.corpus import Corpus

FORMAT = 1  # raise when the layout or the meaning of a file changes
DOCUMENTS_AT_ONCE = 500  # more are encoded no faster, and what they leave is freed later
BATCHES_AHEAD = 3  # encoded while earlier ones are written
KEEP_TEXT_UP_TO = 64_000_000  # bytes; xz looks no further back than 64 MiB
TOKENIZER_TRAINING_BYTES = 100_000_000  # a longer corpus trains its tokenizer on its beginning


class Source(Protocol):
    """Where documents come from: see `corpus.py`."""

    def fingerprint(self) -> str: ...

    def load(self, cache_dir: Path) -> "Corpus": ...


@dataclass(frozen=True)
class Split:
    """One part of the corpus: ids of all documents in a row, and one entry a document."""

    tokens: np.ndarray  # (tokens,) uint16 or uint32, memory-mapped
    offsets: np.ndarray  # (documents + 1,) int64
    n_bytes: np.ndarray  # (documents,) int64, UTF-8 bytes
    source: np.ndarray  # (documents,) int64, index into the report's source names
    text_file: Path  # all texts in a row, there if the corpus is small

    @property
    def documents(self) -> int:
        return len(self.n_bytes)

    @property
    def n_bytes_total(self) -> int:
        return int(self.n_bytes.sum())

    @property
    def n_targets(self) -> int:
        """Everything but each document's <s> is predicted once."""
        return int(self.offsets[-1]) - self.documents


@dataclass(frozen=True)
class Prepared:
    """An opened folder."""

    path: Path
    key: str
    tokenizer: TextTokenizer
    train: Split
    validation: Split
    report: dict[str, Any]


def suggested_vocabulary(n_bytes: int) -> int:
    """A vocabulary that fits a text: the power of two next to one id for 2,000 bytes."""
    return int(2 ** np.clip(np.round(np.log2(max(n_bytes, 1) / 2000)), 9, 15))


def is_prepared(folder: Path) -> bool:
    return (folder / "report.json").is_file()


def _given(tokenizer: str) -> TextTokenizer | None:
    return None if tokenizer in ("bpe", "characters") else TextTokenizer.load(tokenizer)


def data_key(source: Source, *, tokenizer: str, vocab_size: int | None) -> str:
    """The name of the folder that `prepare` makes of the same arguments."""
    given = _given(tokenizer)
    identity = [FORMAT, source.fingerprint(), "" if given else tokenizer, vocab_size]
    identity.append(given.fingerprint if given else "")
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def prepare(source: Source, cache_dir: Path, *, tokenizer: str, vocab_size: int | None) -> Path:
    """The folder of `source`'s tokens, made now unless it is there.

    Args:
        source: the corpus.
        cache_dir: folder of all prepared folders.
        tokenizer: "bpe" or "characters" to train one on the training part, else a file or Hub name.
        vocab_size: ids of a trained BPE at most; None takes what suits the size of the text.
    """
    loaded = _given(tokenizer)
    key = data_key(source, tokenizer=tokenizer, vocab_size=vocab_size)
    target = cache_dir / key
    if is_prepared(target):
        return target
    cache_dir.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{key}.tmp-", dir=cache_dir))
    try:
        _write(source.load(work / "corpus"), work, loaded or tokenizer, vocab_size, key)
        shutil.rmtree(work / "corpus", ignore_errors=True)
        try:
            os.rename(work, target)
        except OSError:  # another process was first: its folder holds the same
            if not is_prepared(target):
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _write(
    corpus: "Corpus", folder: Path, tokenizer: TextTokenizer | str, vocab_size: int | None, key: str
) -> None:
    size = corpus.counts.get("train bytes") or _text_bytes(corpus.train)
    if isinstance(tokenizer, str):
        asked = vocab_size or suggested_vocabulary(size)
        texts = _texts(corpus.train, TOKENIZER_TRAINING_BYTES)
        made = (
            TextTokenizer.train(texts, asked)
            if tokenizer == "bpe"
            else TextTokenizer.characters(texts)
        )
    else:
        asked, made = None, tokenizer
    made.save(folder / "tokenizer.json")
    names: dict[str, int] = {}
    splits = {
        name: _encode(part, made, folder / name, names, keep_text=size <= KEEP_TEXT_UP_TO)
        for name, part in (("train", corpus.train), ("validation", corpus.validation))
    }
    report = {
        "key": key,
        "title": corpus.title,
        "counts": corpus.counts,
        "notes": list(getattr(corpus, "notes", [])),
        "vocabulary": made.vocab_size,
        "vocabulary asked": asked if tokenizer == "bpe" else None,
        "splits": splits,
        "sources": list(names),
    }
    (folder / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")


def _batches(part: "Dataset", column: str, size: int = DOCUMENTS_AT_ONCE) -> Iterator[list[str]]:
    for start in range(0, len(part), size):
        yield part[start : start + size][column]


def _texts(part: "Dataset", at_most: int) -> Iterator[str]:
    taken = 0
    for texts in _batches(part, "text", 2_000):  # which texts train a tokenizer must not change
        for text in texts:
            yield text
            taken += len(text)
        if taken > at_most:
            return


def _text_bytes(part: "Dataset") -> int:
    return sum(len(text.encode()) for texts in _batches(part, "text") for text in texts)


def _encoded(
    part: "Dataset", tokenizer: TextTokenizer
) -> Iterator[tuple[list[str], list[np.ndarray]]]:
    """Texts and their ids, batch after batch, a few ahead: while Python makes arrays of one, the
    library's own threads encode the next."""
    with ThreadPoolExecutor(BATCHES_AHEAD) as pool:
        running: deque[tuple[list[str], Future[Any]]] = deque()
        for texts in _batches(part, "text"):
            running.append((texts, pool.submit(tokenizer.encode_documents, texts)))
            if len(running) > BATCHES_AHEAD:
                first, future = running.popleft()
                yield first, future.result()
        for texts, future in running:
            yield texts, future.result()


def _encode(
    part: "Dataset",
    tokenizer: TextTokenizer,
    folder: Path,
    names: dict[str, int],
    *,
    keep_text: bool,
) -> dict[str, int]:
    folder.mkdir()
    lengths: list[int] = []
    n_bytes: list[int] = []
    unknown = 0
    unk = tokenizer.unk_id
    with open(folder / "tokens.bin", "wb") as file:
        for texts, documents in _encoded(part, tokenizer):
            ids = np.concatenate(documents)
            file.write(ids.tobytes())
            lengths.extend(map(len, documents))
            n_bytes.extend(len(text.encode()) for text in texts)
            unknown += 0 if unk is None else int((ids == unk).sum())
    sources = [names.setdefault(s, len(names)) for b in _batches(part, "source") for s in b]
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    np.save(folder / "n_bytes.npy", np.array(n_bytes, np.int64))
    np.save(folder / "source.npy", np.array(sources, np.int64))
    if keep_text:
        with open(folder / "text.bin", "wb") as file:
            file.writelines(text.encode() for texts in _batches(part, "text") for text in texts)
    return {
        "documents": len(lengths),
        "bytes": sum(n_bytes),
        "tokens": sum(lengths),
        "unknown": unknown,
    }


def open_prepared(path: Path) -> Prepared:
    """Map a folder that `prepare` made; costs no reading of its tokens."""
    tokenizer = TextTokenizer.load(str(path / "tokenizer.json"))
    dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32
    report = json.loads((path / "report.json").read_text(encoding="utf-8"))

    def split(name: str) -> Split:
        part = path / name
        return Split(
            np.memmap(part / "tokens.bin", dtype=dtype, mode="r"),
            np.load(part / "offsets.npy"),
            np.load(part / "n_bytes.npy"),
            np.load(part / "source.npy"),
            part / "text.bin",
        )

    return Prepared(path, path.name, tokenizer, split("train"), split("validation"), report)
