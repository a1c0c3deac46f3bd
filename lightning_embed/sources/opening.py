"""Opening a file: as it is, decompressed, or member by member if it is an archive.

`a.jsonl.gz` is a `.jsonl`, `a.tar.zst` and `a.zip` are archives, whose members may be compressed in
turn. Archives in archives are not opened. What does not read raises UserError with the file's name,
and so does what expands like a decompression bomb.

fsspec's compression table was tried: it has no zstd without a further package, and that package
reads a truncated file, and a second frame, as if the text ended there. pyarrow's decoder does not.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath, PurePosixPath
from typing import IO, Any, NamedTuple

from lightning_embed.errors import UserError, one_line
from lightning_embed.sources.finding import utf8_name

MOST_EXPANSION = 500  # text is 3 to 20 times as long as compressed, logs up to some 200
NEVER_A_BOMB = 100_000_000  # bytes
LONG_SUFFIX = {  # by the short one
    ".tgz": ".tar.gz",
    ".tbz": ".tar.bz2",
    ".tbz2": ".tar.bz2",
    ".txz": ".tar.xz",
    ".tzst": ".tar.zst",
}
ARCHIVES = (".tar", ".zip")
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # those of UTF-32 begin or end like them
FIRST_BLOCK = 4096


class Opened(NamedTuple):
    """One file's or member's content."""

    name: str  # for messages and as a source's name
    suffix: str  # of the content, ".jsonl" of "a.jsonl.gz"; "" if there is none
    stream: IO[bytes]


class Budget:
    """How many bytes may come out of a file."""

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size
        self.left = max(NEVER_A_BOMB, MOST_EXPANSION * size)

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise UserError(
                f"{self.name}, {self.size:,} bytes, expands to more than {MOST_EXPANSION} times"
                " that: a decompression bomb? Decompress it yourself if it is meant to"
            )


class Metered(io.RawIOBase):
    """A stream whose bytes are taken from a budget; remembers the last ones."""

    def __init__(self, stream: Any, budget: Budget) -> None:
        self.stream, self.budget, self.end = stream, budget, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.stream.read(len(buffer))
        self.budget.take(len(data))
        buffer[: len(data)] = data
        self.end = data[-tarfile.BLOCKSIZE :] or self.end
        return len(data)


class Utf8(io.RawIOBase):
    """A stream of UTF-8: raises UserError with the position of the byte that is not."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self.stream, self.name, self.position = stream, name, 0
        self.decoder = codecs.getincrementaldecoder("utf-8")()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.stream.read(len(buffer))
        if not self.position:
            self._look_at(data[:FIRST_BLOCK])
        pending = len(self.decoder.getstate()[0])
        try:
            self.decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            at = self.position - pending + error.start
            raise self._refused(f" at byte {at:,} ({error.reason})") from None
        self.position += len(data)
        buffer[: len(data)] = data
        return len(data)

    def _look_at(self, block: bytes) -> None:
        if block.startswith(UTF16):
            raise self._refused(" at byte 0 (the byte order mark of UTF-16)")
        if block.count(0) > len(block) // 4:
            raise self._refused(" text (its first bytes are mostly NUL: UTF-16, or binary)")

    def _refused(self, why: str) -> UserError:
        return UserError(f"{self.name} is not UTF-8{why}: convert it, or leave it out")


def text_of(stream: IO[bytes], name: str, newline: str = "") -> io.TextIOWrapper:
    """The stream's text, line ends as they are, without a byte order mark.

    Args:
        stream: of UTF-8.
        name: for messages.
        newline: what ends a line, where lines are asked for: "\\n", or "" for "\\r" as well.
    """
    checked = io.BufferedReader(Utf8(stream, name), 1 << 16)
    return io.TextIOWrapper(checked, encoding="utf-8-sig", newline=newline)


def suffixes(name: str) -> tuple[str, list[str]]:
    """The suffix of what is in a file (".tar" of "a.tgz"), and its compressions, outer first."""
    short = PurePath(name).suffix.lower()
    if short in LONG_SUFFIX:
        name = name[: -len(short)] + LONG_SUFFIX[short]
    packed = list[str]()
    while (suffix := PurePath(name).suffix.lower()) in DECOMPRESSORS:
        packed.append(suffix)
        name = name[: -len(suffix)]
    return suffix, packed


def open_all(path: Path, name: str) -> Iterator[Opened]:
    """What is in a file: one content, or of an archive one for each member that is a file.

    A content is read, `telling` of damage, before the next one is asked for. Hidden members are
    left out.
    """
    with open(path, "rb") as file:
        budget = Budget(name, os.fstat(file.fileno()).st_size)
        content = _decompressed(Opened(name, "", file), budget)
        if content.suffix == ".tar":
            yield from _tar_members(content, budget)
        elif content.suffix == ".zip":
            yield from _zip_members(content, budget)
        else:
            yield content


def seekable(stream: IO[bytes]) -> IO[bytes]:
    """The stream, or a temporary copy of one that cannot be read from its end."""
    try:
        stream.seek(0, os.SEEK_END)
        stream.seek(0)
    except (OSError, ValueError):  # io.UnsupportedOperation is both
        copy: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115, gone with its last reader
        shutil.copyfileobj(stream, copy, 1 << 20)
        copy.seek(0)
        return copy
    return stream


def _zstd(stream: IO[bytes]) -> IO[bytes]:
    import pyarrow

    source: Any = pyarrow.PythonFile(stream, mode="r")
    opened: IO[bytes] = pyarrow.CompressedInputStream(source, "zstd")
    return opened


DECOMPRESSORS: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": lambda stream: gzip.GzipFile(fileobj=stream),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".lzma": lzma.LZMAFile,
    ".zst": _zstd,
}


def _decompressed(content: Opened, budget: Budget) -> Opened:
    suffix, packed = suffixes(content.name)
    stream = content.stream
    for kind in packed:
        metered = Metered(DECOMPRESSORS[kind](stream), budget)
        stream = io.BufferedReader(metered, 1 << 16)
    return Opened(content.name, suffix, stream)


def _tar_members(archive: Opened, budget: Budget) -> Iterator[Opened]:
    tail = Metered(archive.stream, Budget(budget.name, budget.left))
    stream = io.BufferedReader(tail, 1 << 16)
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:  # links name members that come by themselves
            if member.isfile() and not _is_hidden(member.name):
                data = tar.extractfile(member)
                assert data is not None
                metered: Any = io.BufferedReader(Metered(data, budget), 1 << 16)
                name = f"{archive.name}/{utf8_name(member.name.removeprefix('./'))}"
                yield _decompressed(Opened(name, "", metered), budget)
    while stream.read(1 << 20):
        pass
    if tail.end.strip(b"\0"):  # an archive ends in blocks of zeros, which `tarfile` does not demand
        raise EOFError("the end of the archive is missing")


def _zip_members(archive: Opened, budget: Budget) -> Iterator[Opened]:
    with zipfile.ZipFile(seekable(archive.stream)) as packed:
        for member in packed.infolist():
            if member.is_dir() or _is_hidden(member.filename):
                continue
            with packed.open(member) as data:
                metered: Any = io.BufferedReader(Metered(data, budget), 1 << 16)
                name = f"{archive.name}/{utf8_name(member.filename)}"
                yield _decompressed(Opened(name, "", metered), budget)


def _is_hidden(name: str) -> bool:
    """Also what a Mac adds to archives."""
    parts = set(PurePosixPath(name).parts) - {".", ".."}
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


@contextmanager
def telling(name: str) -> Iterator[None]:
    """Tell of damage in one line with the file's name; a missing file is told of by the system."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        if error.errno is not None and error.filename is not None:
            raise
        raise _damaged(name, error) from None
    except (EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise _damaged(name, error) from None
    except (RuntimeError, NotImplementedError) as error:  # encrypted; an unknown compression
        raise UserError(f"{name} does not read ({one_line(error)}): unpack it yourself") from None


def _damaged(name: str, error: Exception) -> UserError:
    reason = one_line(error) or type(error).__name__
    return UserError(
        f"{name} does not read ({reason}): truncated, damaged, or not what its suffix says"
    )
