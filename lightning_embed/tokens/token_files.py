"""The files of one prepared corpus, mapped into memory; `split_writer.py` writes them.

    tokenizer.json  report.json  checksums.json
    {train,validation}/tokens.bin   ids of all documents in a row, uint8, uint16 or uint32
                       offsets.npy  (documents + 1,) where each begins, int64
                       n_bytes.npy  (documents,) UTF-8 bytes, int64
                       source.npy   (documents,) number of its source in the report's list, int64
                       text.bin     all texts in a row, of small corpora: what xz is measured on

When a folder is made and when it is found again is in `prepared.py`. An id has as many bytes as
the file has for each of the tokens that `offsets.npy` counts: uint8 came after version 0.2, which
used uint16 for small vocabularies, too.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lightning_embed.sources.mixed import name_of

SPLITS = ("train", "validation")
ID_TYPES = {np.dtype(kind).itemsize: kind for kind in (np.uint8, np.uint16, np.uint32)}
CHECKED, LOST = "documents decoded again", "documents that then differ"  # see `lossy.py`


@dataclass(frozen=True)
class SplitSize:
    """How much one split holds."""

    documents: int
    bytes: int
    tokens: int
    unknown: int  # tokens that are `<unk>`

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / max(1, self.tokens)


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
    named: list[str] = field(default_factory=list)  # sources of a mixture, see `sources/mixed.py`

    @property
    def keeps_text(self) -> bool:
        """Whether the tokens give the text back, as far as is known: all documents that were
        decoded came back, and nothing that is held out is unknown. Else bits per byte leave out
        what is lost."""
        return not self.counts.get(LOST) and not self.splits["validation"].unknown

    def save(self, folder: Path) -> None:
        # spaces in names: what version 0.1 wrote, so that its folders and ours serve both
        fields = {name.replace("_", " "): value for name, value in asdict(self).items()}
        if not self.named:
            del fields["named"]  # which version 0.1 does not know
        (folder / "report.json").write_text(json.dumps(fields, indent=1), encoding="utf-8")

    @property
    def named_of_source(self) -> np.ndarray:
        """`(sources,)` number in `named` of each source."""
        number = {name: n for n, name in enumerate(self.named)}
        return np.array([number[name_of(source)] for source in self.sources], np.int64)

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

    tokens: np.ndarray  # (tokens,) uint8, uint16 or uint32
    offsets: np.ndarray  # (documents + 1,) int64
    n_bytes: np.ndarray  # (documents,) int64, UTF-8 bytes
    source: np.ndarray  # (documents,) int64, index into the report's source names
    text_file: Path  # all texts in a row, there if the corpus is small

    @classmethod
    def open(cls, folder: Path, id_type: type[np.unsignedinteger[Any]]) -> Split:
        """Map a split into memory; costs no reading of it.

        Args:
            folder: of the split.
            id_type: the smallest that holds the vocabulary; the file may have a larger one.

        Raises:
            ValueError: the files do not belong together.
        """

        def mapped(name: str) -> np.ndarray:
            return np.asarray(np.load(folder / name, mmap_mode="r"))

        path, offsets = folder / "tokens.bin", mapped("offsets.npy")
        size, count = path.stat().st_size, int(offsets[-1])
        if size:  # an empty file cannot be mapped
            bytes_each, rest = divmod(size, max(1, count))
            if rest or bytes_each not in ID_TYPES or bytes_each < np.dtype(id_type).itemsize:
                raise ValueError(f"tokens.bin has {size:,} bytes for {count:,} tokens")
            id_type = ID_TYPES[bytes_each]
        return cls(
            np.memmap(path, dtype=id_type, mode="r") if size else np.zeros(0, id_type),
            offsets,
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
        texts = (split.tokens[a:b].astype(np.uint32) for a, b in bounds)
        return [hashlib.blake2b(ids.tobytes()).digest() for ids in texts]

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
