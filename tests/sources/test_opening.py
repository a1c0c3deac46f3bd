"""Compressed files and archives: what is in them, or one line on what is wrong with them."""

import gzip
import io
import lzma
import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
from packing import COMPRESS, tar, zipped

from lightning_embed.errors import UserError
from lightning_embed.sources import opening
from lightning_embed.sources.files import WHOLE_FILES, FilesCorpus
from lightning_embed.sources.formats import texts_of
from lightning_embed.sources.source import About

TEXT = "".join(f"line {n * 7919 % 9973} of a text\r\n" for n in range(2_000)) + "ä"


def read(path: Path) -> list[tuple[str, str]]:
    """Names and texts, pieces joined."""
    found = list[tuple[str, str]]()
    for piece, name in texts_of(path, path.name, "text", WHOLE_FILES):
        if piece.begins:
            found.append((name, ""))
        found[-1] = (name, found[-1][1] + piece.text)
    return found


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(path)
    line = str(caught.value)
    assert "\n" not in line and path.name in line
    return line


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compressed(tmp_path: Path, suffix: str) -> None:
    compress, path = COMPRESS[suffix], tmp_path / f"a.txt.{suffix}"
    path.write_bytes(compress(TEXT.encode()))
    assert read(path) == [(path.name, TEXT)]
    path.write_bytes(compress(TEXT.encode()) * 2)  # as `cat` makes it
    assert read(path) == [(path.name, TEXT * 2)]
    rows = tmp_path / f"a.jsonl.{suffix}"
    rows.write_bytes(compress(b'{"text": "a"}\n{"text": "b"}'))
    assert [text for _, text in read(rows)] == ["a", "b"]
    whole = path.read_bytes()
    for length in (1, 3, len(whole) // 3, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "truncated, damaged" in refused(path), length
    path.write_bytes(b"no archive at all")
    assert "does not read" in refused(path)


def test_a_byte_that_is_not_utf8_in_what_is_compressed(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"x" * 100_000 + b"\xff"))
    assert "a.txt.gz is not UTF-8 at byte 100,000" in refused(tmp_path / "a.txt.gz")


def test_compressed_parquet(tmp_path: Path) -> None:
    from pyarrow import parquet

    made = io.BytesIO()
    parquet.write_table(pa.table({"text": ["a", "b"]}), made)
    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress(made.getvalue()))
    (tmp_path / "b.tar").write_bytes(tar({"b.parquet": made.getvalue()}))
    for name in ("a.parquet.gz", "b.tar"):
        assert [text for _, text in read(tmp_path / name)] == ["a", "b"]


MEMBERS = {
    "one.txt": TEXT.encode(),
    "sub/two.jsonl": b'{"text": "a"}\n{"text": "b"}',
    "sub/three.txt.gz": gzip.compress(b"three"),
    ".hidden.txt": b"\xff",
    "__MACOSX/four.txt": b"\xff",
    "picture.png": b"\xff",
    "inner.zip": zipped({"a.txt": b"a"}),
}


@pytest.mark.parametrize(
    "name", ["a.tar", "a.tar.gz", "a.tgz", "a.tar.bz2", "a.tar.xz", "a.tar.zst", "a.zip"]
)
def test_archives(tmp_path: Path, name: str) -> None:
    data = zipped(MEMBERS) if name == "a.zip" else tar(MEMBERS)
    packing = {"tgz": "gz", "tar": "", "zip": ""}.get(name.split(".")[-1], name.split(".")[-1])
    path = tmp_path / name
    path.write_bytes(COMPRESS[packing](data) if packing else data)
    assert read(path) == [
        (f"{name}/one.txt", TEXT),
        (f"{name}/sub/two.jsonl", "a"),
        (f"{name}/sub/two.jsonl", "b"),
        (f"{name}/sub/three.txt.gz", "three"),
    ]
    about = About()
    documents = list(FilesCorpus((str(path),)).documents(about))
    assert {document.source for document in documents} == {found for found, _ in read(path)}
    assert about.counts["files left out"] == 2
    assert f"2 files of which no format is known ({path}/picture.png, " in about.notes[-1]
    whole = path.read_bytes()
    for length in (len(whole) // 3, len(whole) // 2 if name == "a.tar" else len(whole) - 30):
        path.write_bytes(whole[:length])
        assert "truncated, damaged" in refused(path)


def test_a_tar_cut_between_two_members(tmp_path: Path) -> None:
    data = tar({"one.txt": b"a" * 512, "two.txt": b"b" * 512})
    (tmp_path / "a.tar").write_bytes(data[:1024])
    assert "the end of the archive is missing" in refused(tmp_path / "a.tar")
    (tmp_path / "a.tar").write_bytes(b"")
    assert "a.tar does not read" in refused(tmp_path / "a.tar")


def test_links_in_a_tar_name_what_comes_by_itself(tmp_path: Path) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, kind, target in (
            ("loop.txt", tarfile.SYMTYPE, "loop.txt"),
            ("out.txt", tarfile.SYMTYPE, "../../etc/passwd"),
            ("hard.txt", tarfile.LNKTYPE, "loop.txt"),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, target
            archive.addfile(entry)
        entry = tarfile.TarInfo(os.fsdecode(b"\xff.txt"))
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"a"))
    (tmp_path / "a.tar").write_bytes(made.getvalue())
    ((name, text),) = read(tmp_path / "a.tar")
    assert text == "a" and name.encode() == b"a.tar/\\udcff.txt"


def test_a_zip_with_a_password(tmp_path: Path) -> None:
    data = bytearray(zipped({"a.txt": b"text"}))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + place] |= 1  # the flag of encryption
    (tmp_path / "a.zip").write_bytes(data)
    assert "password required" in refused(tmp_path / "a.zip")


# -- bombs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*COMPRESS, "zip", "tar.gz", "gz.gz"])
def test_a_bomb_stops_at_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(opening, "NEVER_A_BOMB", 100_000)
    monkeypatch.setattr(opening, "MOST_EXPANSION", 20)
    much = b"text " * 400_000
    data = {
        "zip": lambda: zipped({"a.txt": much}),
        "tar.gz": lambda: gzip.compress(tar({"a.txt": much})),
        "gz.gz": lambda: gzip.compress(gzip.compress(much)),
    }.get(kind) or (lambda: COMPRESS[kind](much))
    path = tmp_path / (f"a.{kind}" if kind in ("zip", "tar.gz") else f"a.txt.{kind}")
    path.write_bytes(data())
    assert "expands to more than 20 times that: a decompression bomb?" in refused(path)


def test_ordinary_text_is_no_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "NEVER_A_BOMB", 0)
    (tmp_path / "a.txt.xz").write_bytes(lzma.compress(TEXT.encode()))
    assert read(tmp_path / "a.txt.xz") == [("a.txt.xz", TEXT)]
