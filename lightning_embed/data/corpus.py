"""Where documents come from: the standard library, a user's files, or the Hub.

Knows: sources with one face, `fingerprint()` (cheap: hashes, never parses) and `load()`
(documents with the file each came from, split, counted). Leaves to others: cutting Python source
(`stdlib.py`), reading formats (`files.py`), the Arrow files (`corpus_store.py`), data
sets (`hub_corpus.py`), ids and windows (`tokenizer.py`, `datamodule.py`).

1. fingerprint   "9f86d081884c7d65", of names, contents, options, the recipe's version
2. documents     ("def f(x): ...", "json/decoder.py"), without exact copies and empty ones
3. split         train.arrow and validation.arrow in `cache_dir/corpus-9f86d081884c7d65/`, built in
                 a folder beside it and renamed when whole, so an error leaves nothing half-written
4. load          the two files memory-mapped as `datasets.Dataset`, with what was counted
"""

from __future__ import annotations

import hashlib
import platform
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_embed.data import stdlib
from lightning_embed.data.corpus_store import (
    Corpus,
    Description,
    Document,
    fingerprint_of,
    read_stored,
    require_both,
    set_aside,
    split_by_source,
    stored,
    write_documents,
    write_split,
)
from lightning_embed.data.files import digests, find_files, read_documents, relative_names
from lightning_embed.data.hub import HubCorpus
from lightning_embed.errors import UserError

__all__ = ["Corpus", "FilesCorpus", "HubCorpus", "StdlibCorpus"]

FEWEST_FILES_TO_SPLIT_BY_NAME = 20
TRAIN_SHARE = 0.9


@dataclass(frozen=True)
class StdlibCorpus:
    """The standard library's own source: on every machine, no network needed.

    `root` is the library's folder (this Python's own when None); with `module_code` the lines
    outside functions and classes are documents too. UserError below `minimum_bytes` of source.
    """

    root: Path | None = None
    module_code: bool = False
    minimum_bytes: int = 3_000_000

    def fingerprint(self) -> str:
        sources = self._sources()
        contents = [(path, hashlib.sha256(source).hexdigest()) for path, source in sources.items()]
        return fingerprint_of("stdlib", contents, self.module_code)

    def load(self, cache_dir: Path) -> Corpus:
        return stored(cache_dir, self.fingerprint(), self._write)

    def _sources(self) -> dict[str, bytes]:
        return stdlib.read_sources(self.root or stdlib.library_root(), self.minimum_bytes)

    def _write(self, folder: Path) -> Description:
        sources = self._sources()
        pieces = stdlib.cut(sources, self.module_code)
        counts = pieces.counts
        write_split(folder, "train", pieces.train, counts)
        write_split(folder, "validation", pieces.validation, counts)
        require_both(counts, "the standard library's source")
        notes = set_aside(counts)
        if not self.module_code:
            share = counts["module code bytes left out"] / sum(map(len, sources.values()))
            notes.append(f"{share:.0%} of the source is outside functions and classes: left out")
        title = f"standard library of Python {platform.python_version()}: {len(sources)} files"
        return Description(title, counts, notes)


@dataclass(frozen=True)
class FilesCorpus:
    """Local files or globs: a text file is a document; of jsonl, csv and parquet each row is one.

    Below 20 files the last 10 % of the text are held out (in bytes, files in order; the document on
    the line is cut there, a single one at `int(characters * 0.9)`). From 20 files on, a file is
    held out when the md5 of its path relative to the folder all share, modulo 10, is 0.
    """

    files: tuple[str, ...]
    text_column: str = "text"

    def fingerprint(self) -> str:
        return fingerprint_of("files", digests(find_files(self.files)), self.text_column)

    def load(self, cache_dir: Path) -> Corpus:
        return stored(cache_dir, self.fingerprint(), self._write)

    def _write(self, folder: Path) -> Description:
        paths = find_files(self.files)
        names = relative_names(paths)
        counts = Counter(files=len(paths))
        spool = folder / "all.arrow"  # the line at 90 % is known only after the last document
        sizes = write_documents(spool, self._documents(paths, names, counts))
        if not sizes:
            raise UserError(
                f"no usable document in the {len(paths)} file(s) of --data.files: "
                f"{counts['empty documents']} empty"
            )
        held_out = {name for name in sizes if stdlib.is_held_out(name)}
        if len(paths) < FEWEST_FILES_TO_SPLIT_BY_NAME:
            note, by_name = "held out: the last 10 % of the text", False
        elif not held_out or len(held_out) == len(sizes):
            note, by_name = (
                "held out: the last 10 % of the text, as no file's name falls there",
                False,
            )
        else:
            note, by_name = f"held out: {len(held_out)} of {len(sizes)} files, by name", True
        if by_name:
            split_by_source(spool, folder, held_out, counts)
        else:
            for split in ("train", "validation"):
                part = _part(read_stored(spool), sizes.total(), split == "train")
                write_split(folder, split, part, counts)
        spool.unlink()
        require_both(counts, "the text of --data.files")
        title = names[0] if len(names) == 1 else f"{len(names)} files, {names[0]} to {names[-1]}"
        return Description(title, counts, [note, *set_aside(counts)])

    def _documents(
        self, paths: list[Path], names: list[str], counts: Counter[str]
    ) -> Iterator[Document]:
        """Every document that is neither empty nor a copy of an earlier one."""
        seen: set[bytes] = set()  # digests, as the texts may not fit into memory
        for path, name in zip(paths, names, strict=True):
            for text in read_documents(path, self.text_column):
                if not text or text.isspace():
                    counts["empty documents"] += 1
                    continue
                digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
                if digest in seen:
                    counts["exact copies"] += 1
                    continue
                seen.add(digest)
                yield text, name


def _part(documents: Iterable[Document], total: int, train: bool) -> Iterator[Document]:
    """The first 90 % of `total` bytes of documents, or the rest; the one on the line is cut."""
    before = 0
    for text, source in documents:
        size = len(text.encode())
        # rounded, so that a single document is cut at exactly int(characters * 0.9)
        share = round((TRAIN_SHARE * total - before) / size, 12)
        line = int(len(text) * min(max(share, 0.0), 1.0))
        before += size
        piece = text[:line] if train else text[line:]
        if piece:
            yield piece, source
