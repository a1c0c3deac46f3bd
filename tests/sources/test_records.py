"""Rows of every format with records: the same texts from each, mistakes named with their place."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import feather, ipc, parquet

from lightning_embed.errors import UserError
from lightning_embed.sources import records
from lightning_embed.sources.files import WHOLE_FILES
from lightning_embed.sources.formats import texts_of
from lightning_embed.sources.records import READERS, json_rows

TEXTS = ['a,b "c"\r\n d\n', "NA", "2020-01-01", "007", "ü🙂\u2028x\x0c", "tab\tin", "\\n", ""]


def write(path: Path, table: list[dict[str, Any]]) -> None:
    suffix = path.suffix
    if suffix in (".jsonl", ".json"):
        path.write_text("\n".join(map(json.dumps, table)), encoding="utf-8")
    elif suffix in (".csv", ".tsv"):
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(
                file, list(table[0]), delimiter="," if suffix == ".csv" else "\t"
            )
            writer.writeheader()
            writer.writerows(table)
    elif suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(table), path)
    elif suffix == ".feather":
        feather.write_feather(pa.Table.from_pylist(table), str(path))
    else:
        made = pa.Table.from_pylist(table)
        with ipc.new_stream(path, made.schema) as writer:
            writer.write_table(made)


def texts(path: Path, column: str = "text") -> list[str]:
    return [text.piece.text for text in texts_of(path, str(path), column, WHOLE_FILES)]


def refused(path: Path, column: str = "text") -> str:
    with pytest.raises(UserError) as caught:
        texts(path, column)
    line = str(caught.value)
    assert "\n" not in line and path.name in line
    return line


def test_every_format_is_tried() -> None:
    suffixes = {".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow"}
    assert {f".{name}" for name in READERS} == suffixes


@pytest.mark.parametrize(
    "suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".feather"]
)
def test_each_format_keeps_text_exactly(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write(path, [{"id": n, "text": text} for n, text in enumerate(TEXTS)])
    assert texts(path) == TEXTS


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet", ".arrow"])
def test_nested_columns_and_messages(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi\n"}]
    row = {"a": {"b": {"c": "deep"}}, "d.e": "dotted", "m": messages, "n": {"m": messages}}
    write(path, [row])
    assert texts(path, "a.b.c") == ["deep"]
    assert texts(path, "d.e") == ["dotted"]
    assert texts(path, "m") == texts(path, "n.m") == ["user: Hello\n\nassistant: Hi\n"]
    assert "no column 'a.x': name one of 'a.b' with" in refused(path, "a.x")
    assert "no column 'a.b.x': name one of 'a.b.c' with" in refused(path, "a.b.x")
    assert "column 'a' is dict, not text; name one of 'a.b' with" in refused(path, "a")
    assert "column 'd.e' is str, with no 'f' in it" in refused(path, "d.e.f")
    assert "no column 'z.b': name one of 'a', 'd.e'" in refused(path, "z.b")


@pytest.mark.parametrize(
    "messages",
    [
        [],
        ["a"],
        [{"role": "user"}],
        [{"role": 1, "content": "a"}],
        [{"role": "user", "content": [{"type": "image"}]}],
        [{"role": "user", "content": None}],
    ],
)
def test_what_is_no_list_of_messages(tmp_path: Path, messages: Any) -> None:
    path = tmp_path / "a.jsonl"
    write(path, [{"text": messages}])
    assert "a.jsonl:1: column 'text' is list, not text" in refused(path)


def test_messages_in_parts(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    write(tmp_path / "a.jsonl", [{"text": [{"role": "user", "content": parts}]}])
    assert texts(tmp_path / "a.jsonl") == ["user: one two"]


# -- json ----------------------------------------------------------------------------------------


ROWS = st.lists(
    st.dictionaries(st.sampled_from(["text", "b"]), st.text(max_size=30), min_size=1).map(
        lambda row: {"text": "", **row}
    ),
    max_size=8,
)


@settings(deadline=None)
@given(ROWS, st.sampled_from(["array", "lines", "pretty"]), st.integers(1, 40), st.booleans())
def test_json_in_any_shape_read_in_blocks_of_any_size(
    rows: list[dict[str, str]], shape: str, block: int, ascii_only: bool
) -> None:
    indent = 2 if shape == "pretty" else None
    if shape == "lines":
        text = "\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    else:
        text = json.dumps(rows, indent=indent, ensure_ascii=ascii_only)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "BLOCK", block)
        found = list(json_rows(io.BytesIO(f" {text}\n".encode()), "t.json", "text"))
    assert [value for _, value in found] == [row["text"] for row in rows]
    if shape == "lines":
        assert [where for where, _ in found] == [f"t.json:{n + 1}" for n in range(len(rows))]


@pytest.mark.parametrize("block", [1, 5, 1 << 20])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[{"text": "a"}\n{"text": "b"}]', ":2 does not parse as JSON (no comma between two rows)"),
        ('[{"text": "a"},\n', ":2 does not parse as JSON (the array has no end)"),
        ('[{"text": "a"}', ":1 does not parse as JSON (the array has no end)"),
        ("[", ":1 does not parse as JSON (the array has no end)"),
        ('[{"text": "a"}]\n{"text": "b"}', ":2 does not parse as JSON (something follows"),
        ('[{"text": "a"},\n"b"]', ":2 is not a JSON object with a 'text' in it"),
        ("17", ":1 is not a JSON object"),
        ("prose", ":1 is not a JSON object"),
        ('{"text": "a"}\n{"text": ', ":2 does not parse as JSON"),
        ('[\n{"text": "a", "text": tru}]', ":2 does not parse as JSON"),
        ('[{"texts": "a"}]', ":1 has no column 'text': name one of 'texts'"),
        ('[{"text": {"a": 1}}]', ":1: column 'text' is dict, not text"),
        ('[{"text": "\\ud800"}]', ":1: half a surrogate pair"),
        ('{"text": ' + "[" * 100_000 + "}", ":1 does not parse as JSON"),
        ('{"text": ' + "1" * 10_000 + "}", ":1 does not parse as JSON"),
    ],
)
def test_json_that_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, content: str, said: str
) -> None:
    if block == 1 and len(content) > 1_000:
        return
    monkeypatch.setattr(records, "BLOCK", block)
    (tmp_path / "a.json").write_text(content)
    assert f"a.json{said}" in refused(tmp_path / "a.json")


def test_a_number_with_too_many_digits_in_jsonl(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": ' + "1" * 10_000 + "}")
    assert "a.jsonl:1 does not parse as JSON" in refused(tmp_path / "a.jsonl")


# -- tables --------------------------------------------------------------------------------------


def test_wrong_tables(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('text\tid\n"a" b\t1\n')
    assert "a.tsv:2 does not parse as TSV" in refused(tmp_path / "a.tsv")
    (tmp_path / "b.csv").write_text("a,b\nc,d\n")
    assert "no column 'a.b': name one of 'a', 'b'" in refused(tmp_path / "b.csv", "a.b")
    (tmp_path / "c.arrow").write_text("no arrow")
    assert "c.arrow does not read as arrow" in refused(tmp_path / "c.arrow")
    write(tmp_path / "d.arrow", [{"text": "a"}, {"text": None}])
    assert "d.arrow: row 2: column 'text' is null" in refused(tmp_path / "d.arrow")


def test_a_record_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "LONGEST_RECORD", 100)
    monkeypatch.setattr(records, "BLOCK", 10)
    for name in ("a.jsonl", "a.csv", "a.json"):
        row = "text\n" + "x" * 200 if name == "a.csv" else json.dumps({"text": "x" * 200})
        (tmp_path / name).write_text(f"{row}\n" * 2)
    assert "a.jsonl:1 is a line of more than 100 characters" in refused(tmp_path / "a.jsonl")
    assert "a.csv:2 is a line of more than 100 characters" in refused(tmp_path / "a.csv")
    assert "a.json:1 does not parse as JSON (Unterminated string" in refused(tmp_path / "a.json")
