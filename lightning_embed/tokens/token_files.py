"""The files of one prepared corpus: writing them in one pass, and mapping them into memory.

    tokenizer.json  report.json  checksums.json
    {train,validation}/tokens.bin   ids of all documents in a row, uint16 or uint32
                       offsets.npy  (documents + 1,) where each begins, int64
                       n_bytes.npy  (documents,) UTF-8 bytes, int64
                       source.npy   (documents,) number of its source in the report's list, int64
                       text.bin     all texts in a row, of small corpora: what xz is measured on

When a folder is made and when it is found again is in `prepared.py`.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightning_embed.sources.source import Document

SPLITS = ("train", "validation")


@dataclass(frozen=True)
class SplitSize:
    """How much one split holds."""

    documents: int
    bytes: int
    tokens: int
    unknown: int  # tokens that are `<unk>`


@dataclass(frozen=True)
class Report:
    """What was found while a corpus was read and tokenised."""

    key: str
    title: str
    counts: dict[str, int]  # by plain words, such as "train bytes": see `source.About`
    notes: list[str]  # finished lines for the screen
    vocabulary: int
    vocabulary_asked: int | None  # of a BPE that was trained here
    splits: dict[str, SplitSize]
    sources: list[str]  # names, those of the training part first

    def save(self, folder: Path) -> None:
        # spaces in names: what version 0.1 wrote, so that its folders and ours serve both
        fields = {name.replace("_", " "): value for name, value in asdict(self).items()}
        (folder / "report.json").write_text(json.dumps(fields, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Report:
        text = (folder / "report.json").read_text(encoding="utf-8")
        fields = {name.replace(" ", "_"): value for name, value in json.loads(text).items()}
        fields["splits"] = {name: SplitSize(**size) for name, size in fields["splits"].items()}
        return cls(**fields)


def is_prepared(folder: Path) -> bool:
    """Whether the folder is there; it appears under its name only when it is whole."""
    return (folder / "report.json").is_file()


@dataclass(frozen=True)
class Split:
    """One part of the corpus, memory-mapped: ids of all documents in a row, and one entry a
    document."""

    tokens: np.ndarray  # (tokens,) uint16 or uint32
    offsets: np.ndarray  # (documents + 1,) int64
    n_bytes: np.ndarray  # (documents,) int64, UTF-8 bytes
    source: np.ndarray  # (documents,) int64, index into the report's source names
    text_file: Path  # all texts in a row, there if the corpus is small

    @classmethod
    def open(cls, folder: Path, id_type: type[np.generic]) -> Split:
        """Map a split into memory; costs no reading of it."""
        tokens = folder / "tokens.bin"
        empty = not tokens.stat().st_size  # which cannot be mapped

        def mapped(name: str) -> np.ndarray:
            return np.asarray(np.load(folder / name, mmap_mode="r"))

        return cls(
            np.zeros(0, id_type) if empty else np.memmap(tokens, dtype=id_type, mode="r"),
            mapped("offsets.npy"),
            mapped("n_bytes.npy"),
            mapped("source.npy"),
            folder / "text.bin",
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its path: a memory map would be pickled with all its data."""
        return Split.open, (self.text_file.parent, self.tokens.dtype.type)

    @property
    def documents(self) -> int:
        return len(self.n_bytes)

    @property
    def n_targets(self) -> int:
        """Everything but each document's <s> is predicted once."""
        return int(self.offsets[-1]) - self.documents


def shared_documents(one: Split, other: Split) -> int:
    """How many documents of `one` are in `other`, too; both in tokens of the same tokenizer."""
    lengths = np.diff(one.offsets)

    def digests(split: Split) -> list[bytes]:
        alike = np.flatnonzero(np.isin(np.diff(split.offsets), lengths))
        bounds = zip(split.offsets[alike], split.offsets[alike + 1], strict=True)
        return [hashlib.blake2b(split.tokens[a:b].tobytes()).digest() for a, b in bounds]

    there = set(digests(other))
    return sum(digest in there for digest in digests(one))


def fits_together(split: Split, sources: int) -> bool:
    """Whether the files of a split, made before there were checksums, agree with one another."""
    ends, n, text = split.offsets, split.documents, split.text_file
    return (
        len(ends) == n + 1 == len(split.source) + 1
        and ends[0] == 0
        and ends[-1] == len(split.tokens)
        and bool((np.diff(ends) > 0).all())
        and bool(((split.source >= 0) & (split.source < sources)).all())
        and (not text.exists() or text.stat().st_size == split.n_bytes.sum())
    )


class SplitWriter:
    """Writes one split, document after document: ids and texts at once, the rest in `finish`.

    Use it as a context manager, which closes the files.

    Args:
        folder: of the split, made here.
        unk_id: the id to be counted as unknown, if the tokenizer has one.
    """

    def __init__(self, folder: Path, unk_id: int | None) -> None:
        folder.mkdir()
        self.folder, self.unk_id = folder, unk_id
        self.tokens = open(folder / "tokens.bin", "wb")  # noqa: SIM115, closed by __exit__
        self.text = open(folder / "text.bin", "wb")  # noqa: SIM115
        # arrays of 8 bytes a number, as there may be millions of documents
        self.lengths, self.n_bytes, self.source = array("q"), array("q"), array("q")
        self.total_bytes = self.unknown = 0
        self.names: dict[str, int] = {}  # of sources, numbered as they come

    def __enter__(self) -> SplitWriter:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.tokens.close()
        self.text.close()

    def write(self, documents: list[Document], ids: list[np.ndarray]) -> None:
        """Add documents, or the next parts of one, and their ids."""
        if not documents:
            return
        joined = np.concatenate(ids)
        self.tokens.write(joined.tobytes())
        self.unknown += 0 if self.unk_id is None else int((joined == self.unk_id).sum())
        for document, its in zip(documents, ids, strict=True):
            text = document.text.encode()
            if not self.text.closed:
                self.text.write(text)
            if document.begins:
                self.lengths.append(0)
                self.n_bytes.append(0)
                self.source.append(self.names.setdefault(document.source, len(self.names)))
            self.lengths[-1] += len(its)
            self.n_bytes[-1] += len(text)
            self.total_bytes += len(text)

    def drop_text(self) -> None:
        """Keep no texts."""
        self.text.close()
        (self.folder / "text.bin").unlink(missing_ok=True)

    def finish(self, numbers: dict[str, int]) -> SplitSize:
        """Write what is known at the end, with the sources' numbers in the whole corpus."""
        number = np.array([numbers[name] for name in self.names], np.int64)
        offsets = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)
        np.save(self.folder / "offsets.npy", offsets)
        np.save(self.folder / "n_bytes.npy", np.array(self.n_bytes, np.int64))
        np.save(self.folder / "source.npy", number[np.array(self.source, np.int64)])
        return SplitSize(len(self.lengths), self.total_bytes, int(offsets[-1]), self.unknown)
