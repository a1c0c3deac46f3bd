"""Writes the files of one split in one pass, or goes on where a killed run was safe.

The files are those of `token_files.py`; what is kept beside them meanwhile is told in `work.py`.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedRandom, BufferedReader, BufferedWriter
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from lightning_embed.sources.source import Document
from lightning_embed.tokens.token_files import SplitSize

ROWS_AT_ONCE = 1_000_000  # documents


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
