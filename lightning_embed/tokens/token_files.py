"""The files of one prepared corpus: writing them in one pass, and mapping them into memory.

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
import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from io import BufferedRandom, BufferedReader, BufferedWriter
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from lightning_embed.sources.mixed import name_of
from lightning_embed.sources.source import Document

SPLITS = ("train", "validation")
ID_TYPES = {np.dtype(kind).itemsize: kind for kind in (np.uint8, np.uint16, np.uint32)}
ROWS_AT_ONCE = 1_000_000  # documents
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


class CannotGoOn(Exception):
    """What was written before does not serve; says why."""


class SplitWriter:
    """Writes one split, document after document, or goes on where an earlier one was safe.

    Ids and texts stand in the split's folder from the start. Rows of three numbers a document, and
    the sources' names, are kept outside (`work.py`) and become the other files in `finish`, so that
    memory does not grow with the text. Use it as a context manager, which closes the files.

    Args:
        folder: of the split, made here.
        unk_id: the id to be counted as unknown, if the tokenizer has one.
        state: what `safe` said, to go on from there.

    Raises:
        CannotGoOn: the files are not those of then.
    """

    def __init__(
        self, folder: Path, unk_id: int | None, state: dict[str, Any] | None = None
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.unk_id = folder, unk_id
        beside = folder.parent.parent / folder.name
        self._paths = {
            "tokens": folder / "tokens.bin",
            "text": folder / "text.bin",
            "rows": beside.with_suffix(".rows"),
            "names": beside.with_suffix(".names"),
        }
        state = state or {"sizes": dict.fromkeys(self._paths, 0), "bytes": 0, "unknown": 0}
        self._last: list[int] | None = state.get("last")  # row of the last document
        self.total_bytes: int = state["bytes"]
        self.unknown: int = state["unknown"]
        if "text" not in state["sizes"]:
            self._paths["text"].unlink(missing_ok=True)
        self._files = {
            name: _opened(self._paths[name], size) for name, size in state["sizes"].items()
        }
        try:
            lines = self._paths["names"].read_text(encoding="utf-8").splitlines()
            self.names = {json.loads(line): n for n, line in enumerate(lines)}  # as they came
        except ValueError:
            raise CannotGoOn(f"{self._paths['names'].name} does not read") from None

    def __enter__(self) -> SplitWriter:
        return self

    def __exit__(self, *exception: Any) -> None:
        for file in self._files.values():
            file.close()

    def write(self, documents: list[Document], texts: list[bytes], ids: list[np.ndarray]) -> None:
        """Add documents, or the next parts of one, with their texts in UTF-8 and their ids."""
        if not documents:
            return
        joined = np.concatenate(ids)
        self._files["tokens"].write(joined.data)
        self.unknown += 0 if self.unk_id is None else int((joined == self.unk_id).sum())
        if "text" in self._files:
            self._files["text"].write(b"".join(texts))
        rows = array("q")
        for document, text, its in zip(documents, texts, ids, strict=True):
            if document.begins or self._last is None:
                rows.extend(self._last or ())
                self._last = [0, 0, self._number(document.source)]
            self._last[0] += len(its)
            self._last[1] += len(text)
            self.total_bytes += len(text)
        self._files["rows"].write(rows.tobytes())

    def _number(self, source: str) -> int:
        if source not in self.names:
            self.names[source] = len(self.names)
            self._files["names"].write(json.dumps(source).encode() + b"\n")
        return self.names[source]

    def drop_text(self) -> None:
        """Keep no texts. The file goes at the end: until the next shard is safe, whoever goes on
        after a kill still has it."""
        if "text" in self._files:
            self._files.pop("text").close()

    def safe(self) -> dict[str, Any]:
        """Have all that was written on the disk; what to go on from, as JSON values."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        return {
            "sizes": {name: file.tell() for name, file in self._files.items()},
            "last": self._last,
            "bytes": self.total_bytes,
            "unknown": self.unknown,
        }

    def finish(self, numbers: dict[str, int]) -> SplitSize:
        """Write what is known at the end, with the sources' numbers in the whole corpus."""
        for file in self._files.values():
            file.flush()
        if "text" not in self._files:
            self._paths["text"].unlink(missing_ok=True)
        last = np.array(self._last or [], np.int64).reshape(-1, 3)
        documents = self._files["rows"].tell() // last.itemsize // 3 + len(last)
        number = np.array([numbers[name] for name in self.names], np.int64)
        tokens = 0
        with (
            open(self._paths["rows"], "rb") as rows,
            _column(self.folder / "offsets.npy", documents + 1) as offsets,
            _column(self.folder / "n_bytes.npy", documents) as n_bytes,
            _column(self.folder / "source.npy", documents) as source,
        ):
            offsets.write(np.zeros(1, np.int64).data)
            for piece in chain(_rows(rows), [last]):
                length, size, which = np.ascontiguousarray(piece.T)
                offsets.write((tokens + np.cumsum(length)).data)
                n_bytes.write(size.data)
                source.write(number[which].data)
                tokens += int(length.sum())
        return SplitSize(documents, self.total_bytes, tokens, self.unknown)


def _opened(path: Path, size: int) -> BufferedRandom:
    """A file to go on with behind its first `size` bytes."""
    try:
        file = open(path, "r+b" if size else "w+b")  # noqa: SIM115, `SplitWriter` closes it
    except FileNotFoundError:
        raise CannotGoOn(f"{path.name} is gone") from None
    if file.seek(0, os.SEEK_END) < size:
        file.close()
        raise CannotGoOn(f"{path.name} is shorter than it was")
    file.truncate(size)
    file.seek(size)
    return file


def _rows(file: BufferedReader) -> Iterator[np.ndarray]:
    while len(piece := np.fromfile(file, np.int64, 3 * ROWS_AT_ONCE)):
        yield piece.reshape(-1, 3)


@contextmanager
def _column(path: Path, length: int) -> Iterator[BufferedWriter]:
    """A file as `np.save` writes it of so many int64, to be written piece by piece."""
    with open(path, "wb") as file:
        header = {"descr": "<i8", "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(file, header)
        yield file
