"""A corpus on disk: documents with their sources, in Arrow files that are mapped into memory.

Knows: the folder of one corpus, how it is built so that an error or a second process leaves nothing
half-written, reading it back as `datasets.Dataset`, and the words for what was counted. Leaves to
others: which documents there are and in which split they go (`corpus.py`).

    cache_dir/corpus-9f86d081884c7d65/train.arrow        text, source
                                      validation.arrow   text, source
                                      about.json         title, counts, notes
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning_embed.errors import UserError

if TYPE_CHECKING:  # a second of start-up that `--help` and `generate` do not need
    from datasets import Dataset

RECIPE = 1  # raise it whenever the same input would give other documents or another split
BATCH_BYTES = 4_000_000  # of text held in memory while writing

Document = tuple[str, str]  # text, source


class Corpus(NamedTuple):
    """Documents of both splits (columns `text`, `source`) and what a user should know of them.

    `counts` has plain words as keys: "files", "documents" and "bytes" (UTF-8, of the documents
    kept, both splits), "train documents", "train bytes", "validation documents", "validation
    bytes", and a line for everything set aside. `notes` are finished lines for the screen.
    """

    train: Dataset
    validation: Dataset
    title: str
    counts: dict[str, int]
    notes: list[str]


class Description(NamedTuple):
    title: str
    counts: Counter[str]
    notes: list[str]


def stored(cache_dir: Path, key: str, write: Callable[[Path], Description]) -> Corpus:
    """Open the corpus `key` in `cache_dir`, after `write` has built it there if it is new."""
    import datasets

    folder = Path(cache_dir) / f"corpus-{key}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=folder.parent, prefix=f".{folder.name}-", ignore_cleanup_errors=True
        ) as name:
            part = Path(name)
            description = write(part)
            (part / "about.json").write_text(json.dumps(description._asdict()), encoding="utf-8")
            try:
                os.replace(part, folder)
            except OSError:
                if not folder.is_dir():  # else another process was first, with the same contents
                    raise
    about: dict[str, Any] = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    train, validation = (
        datasets.Dataset.from_file(str(folder / f"{split}.arrow"))
        for split in ("train", "validation")
    )
    return Corpus(train, validation, **about)


def write_split(
    folder: Path, split: str, documents: Iterable[Document], counts: Counter[str]
) -> None:
    counted = Counter[str]()

    def counting() -> Iterator[Document]:
        for document in documents:
            counted["documents"] += 1
            yield document

    counted["bytes"] = write_documents(folder / f"{split}.arrow", counting()).total()
    _count(split, counted, counts)


def _count(split: str, counted: Counter[str], counts: Counter[str]) -> None:
    for what, number in counted.items():
        counts[what] += number
        counts[f"{split} {what}"] = number


def split_by_source(path: Path, folder: Path, held_out: set[str], counts: Counter[str]) -> None:
    """Deal out stored documents: those of the sources in `held_out` to validation, the rest to
    train. Whole Arrow columns, as making Python strings of a text costs more than reading it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = pa.array(sorted(held_out), pa.string())
    for split in ("train", "validation"):
        documents = size = 0
        with (
            pa.memory_map(str(path)) as file,
            pa.ipc.open_stream(file) as stream,
            pa.ipc.new_stream(str(folder / f"{split}.arrow"), stream.schema) as written,
        ):
            for batch in stream:
                theirs = pc.is_in(batch.column("source"), value_set=names)
                batch = batch.filter(pc.invert(theirs) if split == "train" else theirs)
                written.write_batch(batch)
                documents += batch.num_rows
                size += pc.sum(pc.binary_length(batch.column("text"))).as_py() or 0
        _count(split, Counter(documents=documents, bytes=size), counts)


def write_documents(path: Path, documents: Iterable[Document]) -> Counter[str]:
    """Write documents as an Arrow stream, a few MB at a time; returns UTF-8 bytes by source."""
    import pyarrow as pa

    schema = pa.schema([("text", pa.string()), ("source", pa.string())])
    sizes = Counter[str]()
    texts, sources, room = list[str](), list[str](), BATCH_BYTES
    with pa.ipc.new_stream(str(path), schema) as stream:
        for text, source in documents:
            size = len(text.encode())
            sizes[source] += size
            texts.append(text)
            sources.append(source)
            room -= size
            if room <= 0:
                stream.write_batch(pa.record_batch([texts, sources], schema=schema))
                texts, sources, room = [], [], BATCH_BYTES
        stream.write_batch(pa.record_batch([texts, sources], schema=schema))
    return sizes


def read_stored(path: Path) -> Iterator[Document]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        for batch in stream:
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def fingerprint_of(*parts: object) -> str:
    """16 hexadecimal digits of names, digests of contents, and options (JSON values)."""
    return hashlib.sha256(json.dumps([RECIPE, *parts]).encode()).hexdigest()[:16]


def require_both(counts: Counter[str], what: str) -> None:
    """Raise UserError, one line, when `what` leaves a split without text."""
    for split in ("train", "validation"):
        if not counts[f"{split} bytes"]:
            raise UserError(
                f"{what} is too small: of {counts['bytes']:,} bytes none are left for {split}; "
                "give more with --data.files"
            )


def set_aside(counts: Counter[str]) -> list[str]:
    """One line on what was left out, or none."""
    shown = [
        "exact copies",
        "empty documents",
        "held-out documents left out",
        "files that do not parse",
    ]
    found = [f"{counts[what]:,} {what}" for what in shown if counts[what]]
    return [f"set aside: {'; '.join(found)}"] if found else []
