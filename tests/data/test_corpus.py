"""Files and data sets as corpora: what is kept, what is counted, how it splits, what is refused."""

import csv
import json
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from lightning_embed.data.corpus import Corpus, FilesCorpus, HubCorpus, _part
from lightning_embed.data.stdlib import is_held_out


def load(tmp_path: Path, *patterns: str, **options: Any) -> Corpus:
    files = tuple(str(tmp_path / pattern) for pattern in patterns)
    return FilesCorpus(files, **options).load(tmp_path / "cache")


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


def texts(corpus: Corpus) -> list[str]:
    return [*corpus.train["text"], *corpus.validation["text"]]


def refused(tmp_path: Path, *patterns: str, **options: Any) -> str:
    """The one line with which a corpus is refused; nothing may be left behind."""
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load(tmp_path, *patterns, **options)
    line = str(caught.value)
    assert "\n" not in line
    cache = tmp_path / "cache"
    assert not cache.exists() or not list(cache.iterdir())
    return line


# -- what is read --------------------------------------------------------------------------


@pytest.mark.parametrize("length", [10, 11, 19, 97, 1003, 4567])
def test_one_text_file_is_cut_as_nanogpt_does(tmp_path: Path, length: int) -> None:
    data = ("First Citizen:\r\nWe are ä🙂 accounted\r\n\t" * 200)[:length]
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + data.encode())
    corpus = load(tmp_path, "a.txt")
    n = len(data)
    assert corpus.train["text"][:] == [data[: int(n * 0.9)]]
    assert corpus.validation["text"][:] == [data[int(n * 0.9) :]]
    assert corpus.title == "a.txt" and corpus.train["source"][:] == ["a.txt"]
    assert corpus.counts["files"] == 1 and corpus.counts["bytes"] == len(data.encode())


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", ".txt"])
def test_each_format_keeps_text_exactly(tmp_path: Path, suffix: str) -> None:
    rows = ['a,b "c"\r\n d\n', "ü🙂\u2028x\x0c", "x" * 200_000, "  leading"]
    if suffix == ".txt":
        for i, row in enumerate(rows):
            (tmp_path / f"{i}.txt").write_bytes(row.encode())
    else:
        write(tmp_path / f"a{suffix}", rows)
    limit = csv.field_size_limit()
    corpus = load(tmp_path, f"*{suffix}")
    assert "".join(texts(corpus)) == "".join(rows)
    assert corpus.train["text"][:2] == rows[:2]
    assert csv.field_size_limit() == limit


def test_other_text_suffixes_and_a_folder_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for i, name in enumerate(["a.md", "deep/b.py", "deep/er/c.rst", "deep/er/[d].log"]):
        (tmp_path / name).write_text(f"text number {i}")
    corpus = load(tmp_path, "**/*.*", "a.md", "deep/er/[d].log")
    assert corpus.counts["files"] == 4
    assert "".join(texts(corpus)) == "".join(f"text number {i}" for i in (0, 1, 3, 2))
    assert corpus.train["source"][:2] == ["a.md", "deep/b.py"]
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert FilesCorpus(("~/a.md",)).load(tmp_path / "cache").title == "a.md"


def test_copies_and_empty_documents_are_counted(tmp_path: Path) -> None:
    rows = ["one one one", "", " \n\t", "two two two", "one one one", "three", "two two two"]
    write(tmp_path / "a.jsonl", rows)
    (tmp_path / "b.txt").write_text("three")
    (tmp_path / "c.txt").write_text("")
    corpus = load(tmp_path, "a.jsonl", "b.txt", "c.txt")
    assert "".join(texts(corpus)) == "one one onetwo two twothree"
    assert corpus.counts["exact copies"] == 3 and corpus.counts["empty documents"] == 3
    assert "set aside: 3 exact copies; 3 empty documents" in corpus.notes


def test_blank_lines_are_empty_documents(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "first first"}\n\n{"text": "second"}\n')
    (tmp_path / "a.csv").write_text("text\nthird\n\nfourth\n")
    corpus = load(tmp_path, "a.jsonl", "a.csv")
    assert corpus.counts["empty documents"] == 2
    assert "".join(texts(corpus)) == "first firstsecondthirdfourth"


# -- how it splits -------------------------------------------------------------------------


def test_a_single_document_is_cut_at_exactly_nine_tenths_of_its_characters() -> None:
    for n in (10, 70, *range(1_280, 1_400)):  # rounding 0.9 * bytes / bytes must not move the cut
        for text in ("a" * n, "你" * n, "ä" * 7 + "a" * (n - 7)):
            ((train, _),) = _part([(text, "a.txt")], len(text.encode()), True)
            assert len(train) == int(n * 0.9)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=8))
def test_the_last_tenth_of_the_text(documents: list[str]) -> None:
    pairs = [(text, str(i)) for i, text in enumerate(documents)]
    total = sum(len(text.encode()) for text in documents)
    train, rest = list(_part(pairs, total, True)), list(_part(pairs, total, False))
    assert "".join(t for t, _ in [*train, *rest]) == "".join(documents)
    assert len(train) + len(rest) <= len(documents) + 1  # one document at most is cut
    size = sum(len(text.encode()) for text, _ in train)
    longest = max(len(text.encode()) for text in documents)
    assert abs(size - 0.9 * total) <= 4 + longest  # the cut counts characters


def test_nineteen_files_split_by_size_and_twenty_by_name(tmp_path: Path) -> None:
    names = [f"sub/{i:02}.txt" for i in range(30)]
    (tmp_path / "sub").mkdir()
    (tmp_path / "top.txt").write_text("top of the folders")
    for name in names:
        (tmp_path / name).write_text(f"the text of {name}\n" * 5)
    corpus = load(tmp_path, "top.txt", "sub/*.txt")
    held_out = {name for name in [*names, "top.txt"] if is_held_out(name)}
    assert 0 < len(held_out) < 10
    assert set(corpus.validation["source"]) == held_out
    assert set(corpus.train["source"]) == {*names, "top.txt"} - held_out
    assert f"held out: {len(held_out)} of 31 files, by name" in corpus.notes

    few = load(tmp_path, "sub/0*.txt", "sub/10.txt")
    assert set(few.validation["source"]) == {"09.txt", "10.txt"}
    assert few.notes == ["held out: the last 10 % of the text"]


def test_twenty_files_none_of_which_is_held_out_by_name(tmp_path: Path) -> None:
    names = [f"{i}.txt" for i in range(200) if not is_held_out(f"{i}.txt")][:20]
    for name in names:
        (tmp_path / name).write_text(f"the text of {name}\n" * 5)
    corpus = load(tmp_path, "*.txt")
    assert corpus.counts["validation bytes"] > 0
    assert "no file's name falls there" in corpus.notes[0]


# -- kept on disk --------------------------------------------------------------------------


def test_a_second_load_reads_what_the_first_wrote(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text\n" * 100)
    first = load(tmp_path, "a.txt")
    (folder,) = (tmp_path / "cache").iterdir()
    stamp = (folder / "train.arrow").stat().st_mtime_ns
    second = load(tmp_path, "a.txt")
    assert texts(second) == texts(first) and second[2:] == first[2:]
    assert (folder / "train.arrow").stat().st_mtime_ns == stamp
    assert sorted(p.name for p in folder.iterdir()) == [
        "about.json",
        "train.arrow",
        "validation.arrow",
    ]
    assert second.train.cache_files  # memory-mapped, not read


def test_the_fingerprint_follows_text_names_and_options(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text\n" * 100)
    (tmp_path / "b.txt").write_text("other text\n")
    everything = FilesCorpus((str(tmp_path / "*.txt"),))
    seen = {everything.fingerprint(), FilesCorpus(everything.files, "body").fingerprint()}
    assert everything.fingerprint() in seen
    (tmp_path / "b.txt").write_text("other tExt\n")
    seen.add(everything.fingerprint())
    (tmp_path / "b.txt").rename(tmp_path / "c.txt")
    seen.add(everything.fingerprint())
    (tmp_path / "c.txt").unlink()
    seen.add(everything.fingerprint())
    assert len(seen) == 5


# -- what is refused -----------------------------------------------------------------------


def test_files_that_are_not_there(tmp_path: Path) -> None:
    assert "gone.txt': no such file" in refused(tmp_path, "gone.txt")
    assert "--data.files" in refused(tmp_path, "*.txt")
    assert "--data.files is empty" in refused(tmp_path)
    (tmp_path / "folder").mkdir()
    assert "is a folder: name files in it" in refused(tmp_path, "folder")


def test_nothing_usable(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.txt").write_text(" \n")
    (tmp_path / "c.csv").write_text("")
    (tmp_path / "d.txt").write_text("x")
    line = refused(tmp_path, "a.txt", "b.txt", "c.csv")
    assert line == "no usable document in the 3 file(s) of --data.files: 2 empty"
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


# -- the Hub -------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a patched Hub holds: split -> columns."""
    splits: dict[str, Any] = {}

    def load_dataset(name: str, config: str | None) -> datasets.DatasetDict:
        assert (name, config) == ("someone/stories", "small")
        return datasets.DatasetDict({k: datasets.Dataset.from_dict(v) for k, v in splits.items()})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("lightning_embed.data.hub.require_hub", lambda *_: None)
    return splits


def from_hub(tmp_path: Path, **options: Any) -> Corpus:
    return HubCorpus("someone/stories", "small", **options).load(tmp_path)


def test_a_data_set_with_a_validation_split(tmp_path: Path, hub: dict[str, Any]) -> None:
    hub["train"] = {"id": [1, 2, 3, 4], "story": ["one", "", None, "zwei ü"], "text": [0] * 4}
    hub["validation"] = {"story": ["three", "\n "]}
    corpus = from_hub(tmp_path, text_column="story")
    assert corpus.train[:] == {
        "text": ["one", "zwei ü"],
        "source": ["someone/stories#0", "someone/stories#1"],
    }
    assert corpus.validation["text"][:] == ["three"]
    assert corpus.counts["empty documents"] == 3
    assert (corpus.counts["train bytes"], corpus.counts["bytes"]) == (10, 15)
    assert corpus.title == "someone/stories (small)"


@pytest.mark.parametrize(("rows", "held_out"), [(2, 1), (99, 1), (1_050, 10)])
def test_one_percent_is_held_out(
    tmp_path: Path, hub: dict[str, Any], rows: int, held_out: int
) -> None:
    hub["train"] = {"text": [f"story {i}" for i in range(rows)]}
    for options in ({}, {"validation_split": None}):
        corpus = from_hub(tmp_path, **options)
        assert len(corpus.validation) == held_out and len(corpus.train) == rows - held_out
        assert sorted(texts(corpus)) == sorted(hub["train"]["text"])
        assert "of split 'train', evenly spaced" in corpus.notes[0]
    assert len(set(corpus.train["source"])) <= 100


def test_what_a_data_set_lacks_is_named(tmp_path: Path, hub: dict[str, Any]) -> None:
    hub["train"] = {"body": ["x", "y"], "id": [1, 2]}
    with pytest.raises(ValueError, match=r"name one of 'body', 'id' with --data\.text_column"):
        from_hub(tmp_path)
    with pytest.raises(ValueError, match="column 'id' is int64, not text"):
        from_hub(tmp_path, text_column="id")
    with pytest.raises(ValueError, match="no split 'all': it has train"):
        from_hub(tmp_path, text_column="body", train_split="all")
    hub["train"] = {"text": ["only one"]}
    with pytest.raises(ValueError, match="too small: of 8 bytes none are left for train"):
        from_hub(tmp_path)


def test_a_local_folder_needs_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    folder = tmp_path / "stories"
    folder.mkdir()
    write(folder / "train.jsonl", [f"story {i}" for i in range(5)])
    source = HubCorpus(str(folder))
    before, bars = source.fingerprint(), datasets.are_progress_bars_disabled()
    corpus = source.load(tmp_path / "cache")
    assert len(corpus.train) == 4 and len(corpus.validation) == 1
    assert datasets.are_progress_bars_disabled() == bars
    write(folder / "train.jsonl", [f"stories {i}" for i in range(5)])
    assert source.fingerprint() != before


def test_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionRefusedError

    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(ValueError) as caught:
        HubCorpus("someone/stories").load(tmp_path)
    line = str(caught.value)
    assert "\n" not in line and "HF_HUB_OFFLINE" in line and "--data.files" in line


def test_an_unknown_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> None:
        raise ValueError("Config name is missing.\nPlease pick one: ['a', 'b']")

    monkeypatch.setattr(datasets, "load_dataset", unknown)
    monkeypatch.setattr("lightning_embed.data.hub.require_hub", lambda *_: None)
    with pytest.raises(ValueError, match=r"pick one: \['a', 'b'\]; correct --data\.hub or") as e:
        HubCorpus("someone/stories").load(tmp_path)
    assert "\n" not in str(e.value)


def test_the_hub_fingerprint_follows_every_option() -> None:
    options: list[dict[str, Any]] = [
        {"name": "a"},
        {"name": "b"},
        {"name": "a", "config": "c"},
        {"name": "a", "text_column": "c"},
        {"name": "a", "train_split": "c"},
        {"name": "a", "validation_split": None},
    ]
    assert len({HubCorpus(**o).fingerprint() for o in options}) == len(options)
