"""A data set's files one after the other: fetched, read, and let go of.

So a data set that does not fit on the disk becomes tokens. Its files, and which split they belong
to, are those that the `datasets` library finds; they are read as it reads them, in the same order.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from lightning_embed.errors import UserError, one_line
from lightning_embed.sources.opening import open_all, telling
from lightning_embed.sources.records import READERS

ON_THE_HUB = "hf://datasets/"
KINDS = ("parquet", "arrow", "json")  # whose texts are the same here and in the library's tables
OTHER_ROWS = ("field", "columns", "filters")  # settings with which it reads other rows
TABLES = 3  # times the files' size is what they take with the tables the library makes of them
FOOTERS_AT_ONCE = 8


class CannotStream(Exception):
    """The data set does not come file by file; says why."""


class Remote(NamedTuple):
    """A file on the Hub."""

    repository: str
    revision: str
    path: str

    @classmethod
    def of(cls, url: str) -> Remote:
        repository, _, rest = url.removeprefix(ON_THE_HUB).partition("@")
        revision, _, path = rest.partition("/")
        return cls(repository, unquote(revision), path)


class Value(NamedTuple):
    """What a row has in the column of texts."""

    file: int  # number of the file it is in
    where: str  # for messages
    value: Any


@dataclass(frozen=True)
class SplitFiles:
    """The files of one split.

    Args:
        urls: paths of local ones.
        kind: one of `KINDS`.
        column: of the texts.
        stated: how many rows there are, as the data set's card says.
    """

    urls: list[str]
    kind: str
    column: str
    stated: int | None = None

    @property
    def revision(self) -> str | None:
        """The commit the files are of; None of local ones."""
        url = self.urls[0]
        return Remote.of(url).revision if url.startswith(ON_THE_HUB) else None

    @cached_property
    def rows(self) -> int:
        """How many there are: parquet files say so at their ends, for others the card is asked; if
        it does not know, all files are read for it."""
        if self.kind == "parquet":
            with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
                return sum(pool.map(_rows_of, self.urls))
        return sum(1 for _ in self.values()) if self.stated is None else self.stated

    def values(self, first: int = 0) -> Iterator[Value]:
        """The rows in order, from a file on."""
        for number, url in enumerate(self.urls[first:], first):
            with fetched(url) as path:
                name = str(path) if url == str(path) else url.removeprefix(ON_THE_HUB)
                with telling(name):
                    for content in open_all(path, name):
                        read = READERS[self.kind](content.stream, name, self.column)
                        yield from (Value(number, where, value) for where, value in read)


def files_of(
    name: str, config: str | None, revision: str | None, column: str
) -> dict[str, SplitFiles]:
    """The files of each split.

    Raises:
        CannotStream: the library reads other rows of them than we do.
    """
    import datasets

    builder = datasets.load_dataset_builder(name, config, revision=revision)
    if builder.name not in KINDS:
        raise CannotStream(f"{builder.name} files do not come one by one")
    given = [setting for setting in OTHER_ROWS if getattr(builder.config, setting, None)]
    if given:
        raise CannotStream(f"its {given[0]!r} is set")
    found = {}
    for split, files in (builder.config.data_files or {}).items():
        urls = [str(file) for file in files]
        other = [url for url in urls if "://" in url and not url.startswith(ON_THE_HUB)]
        if other or not urls:
            raise CannotStream(f"its files are not on the Hub ({', '.join(other[:1])})")
        told = (builder.info.splits or {}).get(str(split))
        stated = (told.num_examples or None) if told else None
        found[str(split)] = SplitFiles(urls, str(builder.name), column, stated)
    return found


def is_too_large(name: str, config: str | None, revision: str | None, column: str) -> str:
    """In a few words that a data set on the Hub does not fit on the disk; nothing if it does, is
    there already, or cannot come file by file."""
    import datasets
    from huggingface_hub import HfApi

    try:
        builder = datasets.load_dataset_builder(name, config, revision=revision)
        if os.path.isdir(builder.cache_dir):
            return ""
        splits = files_of(name, config, revision, column)
        remote = [Remote.of(url) for files in splits.values() for url in files.urls]
        told = HfApi().get_paths_info(
            remote[0].repository,
            [file.path for file in remote],
            revision=remote[0].revision,
            repo_type="dataset",
        )
        needed = TABLES * sum(getattr(entry, "size", 0) for entry in told)
        free = free_beside(Path(datasets.config.HF_DATASETS_CACHE))
    except Exception:  # whatever it is, the library says it when it is asked for all
        return ""
    gigabytes = f"about {needed / 1e9:,.1f} GB are needed and {free / 1e9:,.1f} GB are free"
    return gigabytes if needed > free else ""


def free_beside(path: Path) -> int:
    """Bytes that are free where a folder is, or will be."""
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(there).free


@contextmanager
def fetched(url: str) -> Iterator[Path]:
    """A file of the data set, on this machine in the block; one that was here before stays.

    Raises:
        UserError: it cannot be had.
    """
    if not url.startswith(ON_THE_HUB):
        yield Path(url)
        return
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    file = Remote.of(url)
    where: dict[str, Any] = {"repo_type": "dataset", "revision": file.revision}
    cached = try_to_load_from_cache(file.repository, file.path, **where)
    try:
        path = Path(hf_hub_download(file.repository, file.path, **where))
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise UserError(
            f"{url} cannot be had: {one_line(error)}; the same command goes on from there"
        ) from None
    try:
        yield path
    finally:
        if not isinstance(cached, str):
            for name in {path.resolve(), path}:
                with suppress(OSError):
                    name.unlink()


def _rows_of(url: str) -> int:
    from pyarrow import parquet

    if not url.startswith(ON_THE_HUB):
        return int(parquet.read_metadata(url).num_rows)
    from huggingface_hub import HfFileSystem

    with HfFileSystem().open(url, block_size=1 << 20) as file:
        return int(parquet.read_metadata(file).num_rows)
