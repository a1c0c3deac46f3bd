"""A user's files as a corpus: what is kept, what is counted, how it splits, what is refused."""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from reading import Corpus, read_all

from lightning_embed.errors import UserError
from lightning_embed.sources import files
from lightning_embed.sources.files import FilesCorpus
from lightning_embed.sources.held_out import is_held_out, last_share
from lightning_embed.sources.records import READERS, jsonl_rows
from lightning_embed.sources.texts import DocumentRule
from lightning_embed.sources.usable import Usable


def load(tmp_path: Path, *patterns: str, **options: Any) -> Corpus:
    return read_all(FilesCorpus(tuple(str(tmp_path / pattern) for pattern in patterns), **options))


def write(path: Path, rows: Iterable[str]) -> None:
    """The rows as jsonl, csv or parquet, by the path's suffix."""
    table = [{"id": i, "text": row} for i, row in enumerate(rows)]
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(table), path)
    elif path.suffix == ".csv":
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["id", "text"])
            writer.writeheader()
            writer.writerows(table)
    else:
        lines = [json.dumps(row) + "\n" for row in table]
        path.write_text("".join(lines), encoding="utf-8")


def refused(tmp_path: Path, *patterns: str, **options: Any) -> str:
    """The one line with which a corpus is refused."""
    with pytest.raises((UserError, FileNotFoundError)) as caught:
        load(tmp_path, *patterns, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line


def whole(text: str, name: str) -> Usable:
    return Usable(name, name, len(text.encode()), len(text), [text])


# -- what is read --------------------------------------------------------------------------


@pytest.mark.parametrize("length", [10, 11, 19, 97, 1003, 4567])
def test_one_text_file_is_cut_as_nanogpt_does(tmp_path: Path, length: int) -> None:
    data = ("First Citizen:\r\nWe are ä🙂 accounted\r\n\t" * 200)[:length]
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + data.encode())
    corpus = load(tmp_path, "a.txt")
    n = len(data)
    assert corpus.train == [data[: int(n * 0.9)]]
    assert corpus.validation == [data[int(n * 0.9) :]]
    assert corpus.title == "a.txt" and corpus.train_sources == ["a.txt"]
    assert corpus.counts["files"] == 1 and corpus.counts["bytes"] == len(data.encode())


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", ".txt"])
def test_each_format_keeps_text_exactly(tmp_path: Path, suffix: str) -> None:
    rows = [
        'a,b "c"\r\n d\n',
        "NA",
        "2020-01-01",
        "007",
        "null",
        "ü🙂\u2028x\x0c",
        "x" * 200_000,
        " y",
    ]
    if suffix == ".txt":
        for i, row in enumerate(rows):
            (tmp_path / f"{i}.txt").write_bytes(row.encode())
    else:
        write(tmp_path / f"a{suffix}", rows)
    limit = csv.field_size_limit()
    corpus = load(tmp_path, f"*{suffix}")
    assert "".join(corpus.texts) == "".join(rows)
    assert corpus.train[:2] == rows[:2]
    assert csv.field_size_limit() == limit


def test_other_text_suffixes_and_a_folder_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for i, name in enumerate(["a.md", "deep/b.py", "deep/er/c.rst", "deep/er/[d].log"]):
        (tmp_path / name).write_text(f"text number {i}")
    corpus = load(tmp_path, "**/*.*", "a.md", "deep/er/[d].log")
    assert corpus.counts["files"] == 4
    assert "".join(corpus.texts) == "".join(f"text number {i}" for i in (0, 1, 3, 2))
    assert corpus.train_sources[:2] == ["a.md", "deep/b.py"]
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert read_all(FilesCorpus(("~/a.md",))).title == "a.md"


def test_copies_and_empty_documents_are_counted(tmp_path: Path) -> None:
    rows = ["one one one", "", " \n\t", "two two two", "one one one", "three", "two two two"]
    write(tmp_path / "a.jsonl", rows)
    (tmp_path / "b.txt").write_text("three")
    (tmp_path / "c.txt").write_text("")
    corpus = load(tmp_path, "a.jsonl", "b.txt", "c.txt")
    assert "".join(corpus.texts) == "one one onetwo two twothree"
    assert corpus.counts["exact copies"] == 3 and corpus.counts["empty documents"] == 3
    assert "set aside: 3 exact copies; 3 empty documents" in corpus.notes


def test_blank_lines_are_empty_documents(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "first first"}\n\n{"text": "second"}\n')
    (tmp_path / "a.csv").write_text("text\nthird\n\nfourth\n")
    corpus = load(tmp_path, "a.jsonl", "a.csv")
    assert corpus.counts["empty documents"] == 2
    assert "".join(corpus.texts) == "first firstsecondthirdfourth"


# -- how it splits -------------------------------------------------------------------------


def test_a_single_document_is_cut_at_exactly_nine_tenths_of_its_characters() -> None:
    for n in (10, 70, *range(1_280, 1_400)):  # rounding 0.9 * bytes / bytes must not move the cut
        for text in ("a" * n, "你" * n, "ä" * 7 + "a" * (n - 7)):
            train, rest = last_share([whole(text, "a.txt")], len(text.encode()))
            assert len(train.text) == int(n * 0.9) and not train.held_out
            assert train.text + rest.text == text and rest.held_out


@given(st.lists(st.text(min_size=1), min_size=1, max_size=8))
def test_the_last_tenth_of_the_text(texts: list[str]) -> None:
    pairs = [whole(text, str(i)) for i, text in enumerate(texts)]
    total = sum(len(text.encode()) for text in texts)
    documents = list(last_share(pairs, total))
    assert "".join(document.text for document in documents) == "".join(texts)
    assert len(documents) <= len(texts) + 1  # one document at most is cut
    held_out = [document.held_out for document in documents]
    assert held_out == sorted(held_out) and all(document.text for document in documents)
    size = sum(len(d.text.encode()) for d in documents if not d.held_out)
    longest = max(len(text.encode()) for text in texts)
    assert abs(size - 0.9 * total) <= 4 + longest  # the cut counts characters


@pytest.mark.parametrize("held", [0, 40, 10**9])
def test_files_too_large_to_be_held_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    rows = [f"row {i} ä" for i in range(30)] + ["", "row 3 ä"]
    write(tmp_path / "a.jsonl", rows)
    at_once, opened = load(tmp_path, "a.jsonl"), list[str]()

    def counting(stream: IO[bytes], name: str, column: str) -> Iterator[Any]:
        opened.append(name)
        return jsonl_rows(stream, name, column)

    monkeypatch.setattr(files, "HELD_BYTES", held)
    monkeypatch.setitem(READERS, "jsonl", counting)
    assert load(tmp_path, "a.jsonl") == at_once
    assert len(opened) == (1 if held > 1000 else 2)


def test_nineteen_files_split_by_size_and_twenty_by_name(tmp_path: Path) -> None:
    names = [f"sub/{i:02}.txt" for i in range(30)]
    (tmp_path / "sub").mkdir()
    (tmp_path / "top.txt").write_text("top of the folders")
    for name in names:
        (tmp_path / name).write_text(f"the text of {name}\n" * 5)
    corpus = load(tmp_path, "top.txt", "sub/*.txt")
    held_out = {name for name in [*names, "top.txt"] if is_held_out(name)}
    assert 0 < len(held_out) < 10
    assert set(corpus.validation_sources) == held_out
    assert set(corpus.train_sources) == {*names, "top.txt"} - held_out
    assert f"held out: {len(held_out)} of 31 files, by name" in corpus.notes

    few = load(tmp_path, "sub/0*.txt", "sub/10.txt")
    assert set(few.validation_sources) == {"09.txt", "10.txt"}
    assert few.notes == ["held out: the last 10 % of the text"]


def test_twenty_files_with_text_in_none_that_is_held_out(tmp_path: Path) -> None:
    names = [f"{i}.txt" for i in range(40)]
    for name in names:
        text = "" if is_held_out(name) else f"the text of {name}\n" * 5
        (tmp_path / name).write_text(text)
    corpus = load(tmp_path, "*.txt")
    assert corpus.counts["validation bytes"] > 0 and corpus.counts["empty documents"] > 0
    assert "no file's name falls there" in corpus.notes[0]


def test_twenty_files_none_of_which_is_held_out_by_name(tmp_path: Path) -> None:
    names = [f"{i}.txt" for i in range(200) if not is_held_out(f"{i}.txt")][:20]
    for name in names:
        (tmp_path / name).write_text(f"the text of {name}\n" * 5)
    corpus = load(tmp_path, "*.txt")
    assert corpus.counts["validation bytes"] > 0
    assert "no file's name falls there" in corpus.notes[0]


# -- known again ---------------------------------------------------------------------------


def test_the_fingerprint_follows_text_names_and_options(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text\n" * 100)
    (tmp_path / "b.txt").write_text("other text\n")

    def now(**options: Any) -> str:
        return FilesCorpus((str(tmp_path / "*.txt"),), **options).fingerprint

    seen = {now(), now(rule=DocumentRule("line"))}
    assert now() in seen
    (tmp_path / "b.txt").write_text("other tExt\n")
    seen.add(now())
    (tmp_path / "b.txt").rename(tmp_path / "c.txt")
    seen.add(now())
    (tmp_path / "c.txt").unlink()
    seen.add(now())
    assert len(seen) == 5


def test_text_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("some text\n")
    calls = list[object]()
    monkeypatch.setattr(files, "digests", lambda paths: calls.append(paths) or [])
    source = FilesCorpus((str(tmp_path / "a.txt"),))
    assert source.fingerprint == source.fingerprint and len(calls) == 1


# -- what is refused -----------------------------------------------------------------------


def test_files_that_are_not_there(tmp_path: Path) -> None:
    assert "gone.txt': no such file" in refused(tmp_path, "gone.txt")
    assert "--data.files" in refused(tmp_path, "*.txt")
    assert "--data.files is empty" in refused(tmp_path)
    (tmp_path / "folder").mkdir()
    line = refused(tmp_path, "folder")
    assert "is a folder without a file of a known format (of 0 files)" in line


def test_nothing_usable(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.txt").write_text(" \n")
    (tmp_path / "c.csv").write_text("")
    (tmp_path / "d.txt").write_text("x")
    line = refused(tmp_path, "a.txt", "b.txt", "c.csv")
    names = ", ".join(str(tmp_path / name) for name in ("a.txt", "b.txt", "c.csv"))
    assert line == f"no usable document in the 3 file(s) of --data.files ({names}): 2 empty"
    assert "too small: of 1 bytes none are left for train" in refused(tmp_path, "d.txt")


def test_the_byte_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x" * 10_000 + b"\xff")
    assert "a.txt is not UTF-8 at byte 10,000" in refused(tmp_path, "a.txt")
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n' * 1_000 + b'{"text": "\xff"}\n')
    assert "a.jsonl is not UTF-8 at byte 14,010" in refused(tmp_path, "a.jsonl")
    (tmp_path / "a.csv").write_bytes(b"text\n" + b"abc\n" * 10_000 + b"\xe4\n")
    assert "a.csv is not UTF-8 at byte 40,005" in refused(tmp_path, "a.csv")


GOOD = '{"text": "good"}\n'


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", GOOD * 2 + "{text: 1}\n", "a.jsonl:3 does not parse as JSON"),
        ("a.jsonl", GOOD + "[1]\n", "a.jsonl:2 is not a JSON object"),
        ("a.jsonl", GOOD + '{"text": null}\n', "a.jsonl:2: column 'text' is null, not text"),
        ("a.jsonl", GOOD + '{"text": 5}\n', "a.jsonl:2: column 'text' is int, not text"),
        ("a.jsonl", GOOD + '{"text": "\\ud800"}\n', "a.jsonl:2: half a surrogate pair"),
        ("a.jsonl", '{"id": 1, "body": "x"}\n', "no column 'text': name one of 'id', 'body'"),
        ("a.csv", "id,body\n1,x\n", "no column 'text': name one of 'id', 'body'"),
        ("a.csv", "text,text\nx,y\n", "a.csv has 2 columns 'text': rename all but one"),
        ("a.csv", "id,text\n1,x\n2\n", "a.csv:3 has 1 fields"),
        ("a.csv", 'id,text\n1,"x\n', "a.csv:2 does not parse as CSV"),
        ("a.parquet", "no parquet", "does not read as parquet"),
    ],
)
def test_the_line_that_is_wrong_is_named(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    (tmp_path / name).write_text(content)
    assert said in refused(tmp_path, name)


def test_parquet_without_the_column_or_without_text(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"body": ["x", None], "id": [1, 2]}), tmp_path / "a.parquet")
    line = refused(tmp_path, "a.parquet")
    assert "name one of 'body', 'id' with --data.text_column" in line
    assert "a.parquet: row 2: column 'body' is null" in refused(
        tmp_path, "a.parquet", text_column="body"
    )
    assert "row 1: column 'id' is int" in refused(tmp_path, "a.parquet", text_column="id")


def test_parquet_without_rows_and_names_with_brackets(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    parquet.write_table(pa.table({"text": ["some text", "more"]}), tmp_path / "b[1].parquet")
    assert "".join(load(tmp_path, "a.parquet", "b[1].parquet").texts) == "some textmore"
