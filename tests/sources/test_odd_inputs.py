"""Odd and bad files by the hundred: each is used as it stands or refused in one line.

`test_a_thousand_odd_files` draws them by number, so that a failure can be made again; the tests
with hypothesis say what is used exactly.
"""

import csv
import io
import json
import os
import random
import shutil
import sys
from array import array
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packing import COMPRESS, tar, zipped
from pyarrow import parquet

from lightning_embed.data.datamodule import TextDataModule
from lightning_embed.errors import UserError
from lightning_embed.sources import opening, texts
from lightning_embed.sources.files import FilesCorpus
from lightning_embed.sources.source import About
from lightning_embed.sources.texts import DocumentRule
from lightning_embed.tokens import prepared, reading
from lightning_embed.tokens.prepared import open_prepared, prepare
from lightning_embed.tokens.tokenizer import TextTokenizer

Draw = random.Random
BYTES = TextTokenizer.train([], 260)  # each byte is a token, so that nothing depends on training


# -- what is in a file ---------------------------------------------------------------------------


def prose(draw: Draw) -> str:
    words = [
        "word",
        "ä",
        "🙂",
        "\r\n",
        "\n",
        "\r",
        "\n\n",
        "\0",
        "\ufeff",
        "\u2028",
        " ",
        "\t",
        "x" * 99,
    ]
    return "".join(draw.choices(words, k=draw.randint(0, 80)))


def text_bytes(draw: Draw) -> bytes:
    text = prose(draw)
    return draw.choice(
        [
            *[text.encode] * 6,
            lambda: b"\xef\xbb\xbf" + text.encode(),
            lambda: text.encode("utf-16"),
            lambda: text.encode("utf-16-le"),
            lambda: text.encode("utf-32"),
            lambda: text.encode("latin-1", "replace") + b"\xe9",
            lambda: text.encode() + b"\xed\xa0\x80",  # a surrogate as if it were a character
            lambda: (text * 30).encode()[: draw.randint(1, 3_000)],  # perhaps in a character
            lambda: draw.randbytes(draw.randint(0, 300)),
            lambda: b"\0" * draw.randint(1, 300),
            lambda: ("line" * draw.randint(1, 5_000)).encode(),
        ]
    )()


def value(draw: Draw) -> object:
    text = prose(draw)
    return draw.choice(
        [text, text, text, text, None, 5, 1.5, True, [], {}, [text], {"text": text}, "\ud800", ""]
    )


def rows(draw: Draw) -> list[dict[str, object]]:
    names = draw.choice([("text",), ("text", "id"), ("id", "text"), ("id", "a", "text"), ("body",)])
    odd = draw.random() < 0.15
    return [
        {name: value(draw) if odd else prose(draw) for name in names}
        for _ in range(draw.randint(0, 9))
    ]


def jsonl(draw: Draw) -> bytes:
    lines = [json.dumps(row) for row in rows(draw)]
    if draw.random() < 0.05:
        lines.append('{"text": ' + "[" * 50_000)
    return "\n".join(lines).encode() + draw.choice([b"", b"\n\n"])


def json_array(draw: Draw) -> bytes:
    return json.dumps(rows(draw), indent=draw.choice([None, 1])).encode()


def table(draw: Draw, delimiter: str = ",") -> bytes:
    made, found = io.StringIO(), rows(draw)
    writer = csv.writer(made, delimiter=delimiter)
    if found:
        writer.writerow(found[0])
        for row in found:
            writer.writerow(list(row.values())[: draw.choice([1, 9])])
    return made.getvalue().encode("utf-8", "surrogatepass")


def not_utf8(before: int) -> pa.Array:
    """Rows of a letter, and one of a byte that is no letter; Arrow looks at none."""
    ends = [*range(before + 2)]
    buffers = [pa.py_buffer(array("i", ends).tobytes()), pa.py_buffer(b"a" * before + b"\xff")]
    return pa.Array.from_buffers(pa.string(), before + 1, [None, *buffers])


def columnar(draw: Draw) -> bytes:
    made = io.BytesIO()
    try:
        table = pa.Table.from_pylist(rows(draw) or [{"text": "a"}])
        if draw.random() < 0.2:
            table = pa.table({"text": not_utf8(draw.randint(0, 3))})
        parquet.write_table(table, made)
    except (pa.ArrowException, UnicodeError):
        return b"PAR1 and no more"
    return made.getvalue()


CONTENTS: dict[str, Callable[[Draw], bytes]] = {
    "txt": text_bytes,
    "md": text_bytes,
    "py": text_bytes,
    "": text_bytes,
    "xyz": text_bytes,
    "jsonl": jsonl,
    "json": json_array,
    "csv": table,
    "tsv": lambda draw: table(draw, "\t"),
    "parquet": columnar,
    "arrow": columnar,
}


def harmed(draw: Draw, data: bytes) -> bytes:
    """Most of them as they are; the others cut, with a byte changed, or with others before it."""
    if not data or draw.random() < 0.7:
        return data
    at = draw.randrange(len(data))
    return draw.choice(
        [
            data[:at],
            data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :],
            data[at:],
            data + draw.randbytes(20),
            b"",
        ]
    )


def odd_file(draw: Draw, folder: Path) -> Path:
    kind = draw.choice(list(CONTENTS))
    data, suffix = harmed(draw, CONTENTS[kind](draw)), f".{kind}" if kind else ""
    if draw.random() < 0.35:
        packing = draw.choice(list(COMPRESS))
        data, suffix = harmed(draw, COMPRESS[packing](data)), f"{suffix}.{packing}"
    elif draw.random() < 0.2:
        archive = draw.choice([tar, zipped])
        members = {f"{n}{suffix}": data for n in range(draw.randint(0, 3))}
        data = harmed(draw, archive(members))
        suffix = ".tar" if archive is tar else ".zip"
    path = folder / f"{draw.choice(['a', 'ä b', 'a[1]', '-a'])}{suffix}"
    if draw.random() < 0.05:
        path = Path(os.fsdecode(os.fsencode(path.with_name("odd")) + b"\xff")).with_suffix(suffix)
    path.write_bytes(data)
    return path


RULES = [
    DocumentRule(),
    DocumentRule("line"),
    DocumentRule("paragraph"),
    DocumentRule("separator", "\n"),
]


def outcome(source: FilesCorpus, folder: Path) -> str:
    """ "used" when the tokens are the text; else the one line, which must name the file."""
    about = About()
    try:
        wanted = "".join(d.text for d in source.documents(about) if not d.held_out)
        made = open_prepared(prepare(source, folder, tokenizer=BYTES, vocab_size=None))
    except (UserError, OSError) as error:
        return str(error)
    ids = made.train.tokens
    text = made.tokenizer.decode(ids, skip_special_tokens=True)
    assert text == wanted and made.train.text_file.read_bytes() == wanted.encode()
    assert made.train.n_bytes.sum() == len(wanted.encode())
    assert about.counts["files"] == 1
    return "used"


def small(patch: pytest.MonkeyPatch) -> None:
    """Blocks, parts and limits so small that short files meet them."""
    patch.setattr(texts, "BLOCK", 64)
    patch.setattr(reading, "LONGEST_WHOLE", 200)
    patch.setattr(reading, "PART", 70)
    patch.setattr(opening, "NEVER_A_BOMB", 20_000)
    patch.setattr(prepared.checksums, "note_checksums", lambda folder: None)


@pytest.mark.parametrize(
    "first", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (250, 500, 750))]
)
def test_a_thousand_odd_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    small(monkeypatch)
    used = 0
    for number in range(first, first + 250):
        draw, folder = random.Random(number), tmp_path / str(number)
        folder.mkdir()
        path = odd_file(draw, folder)
        rule = draw.choice(RULES) if draw.random() < 0.1 else RULES[0]
        line = outcome(FilesCorpus((str(path),), rule=rule), folder / "cache")
        shown = ascii(path.name)[1:-1].split("\\")[0]  # the part that every terminal can show
        assert line == "used" or shown in line, (number, line)
        assert "\n" not in line, (number, line)
        assert not list(folder.glob("cache/.*")), number
        used += line == "used"
        shutil.rmtree(folder)
    assert 60 < used < 150  # neither only good ones nor only bad ones


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=20, max_size=300))
def test_any_text_comes_back_byte_for_byte(tmp_path: Path, text: str) -> None:
    data = text.encode()
    if data.count(0) > len(data) // 4 or not (text[:15].strip() and text[-2:].strip()):
        return
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        small(patch)
        source = FilesCorpus((str(tmp_path / "a.txt"),))
        made = open_prepared(prepare(source, tmp_path / "cache", tokenizer=BYTES, vocab_size=None))
    both = [made.tokenizer.decode(split.tokens) for split in (made.train, made.validation)]
    assert "".join(both) == text.removeprefix("\ufeff")


def test_nul_is_text_but_not_when_it_is_most_of_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"some\0text " * 30)
    assert outcome(FilesCorpus((str(tmp_path / "a.txt"),)), tmp_path / "cache") == "used"
    (tmp_path / "a.txt").write_bytes("text".encode("utf-16-le") * 30)
    line = outcome(FilesCorpus((str(tmp_path / "a.txt"),)), tmp_path / "cache")
    assert "a.txt is not UTF-8 text (its first bytes are mostly NUL" in line


def test_a_row_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"text": not_utf8(before=2_500)}), path)
    line = outcome(FilesCorpus((str(path),)), tmp_path / "cache")
    assert line.startswith(f"{path}: row 2501 is not UTF-8 at its byte 0")


def test_line_ends_stay_as_they_are(tmp_path: Path) -> None:
    text = "one\r\ntwo\rthree\n\r\n\r\rfour\0\u2028\x85five " * 20
    for name, data in {
        "a.txt": text.encode(),
        "a.jsonl": "\r\n".join(json.dumps({"text": x}) for x in (text, "last")).encode(),
        "a.csv": f'text\r\n"{text}"\r\nlast\r\n'.encode(),
    }.items():
        (tmp_path / name).write_bytes(data)
        source = FilesCorpus((str(tmp_path / name),))
        made = open_prepared(prepare(source, tmp_path / "c", tokenizer=BYTES, vocab_size=None))
        both = [made.tokenizer.decode(split.tokens) for split in (made.train, made.validation)]
        assert "".join(both).removesuffix("last") == text, name


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such files")
def test_what_opens_and_does_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").symlink_to("/proc/self/mem")  # also for those who may read everything
    assert "a.txt does not read" in outcome(FilesCorpus((str(tmp_path / "a.txt"),)), tmp_path / "c")
    os.mkfifo(tmp_path / "b.txt")  # to which nobody writes
    assert "b.txt" in outcome(FilesCorpus((str(tmp_path / "b.txt"),)), tmp_path / "c")


def test_a_file_that_vanishes_between_hashing_and_reading(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("some text " * 30)
    source = FilesCorpus((str(tmp_path / "*.txt"),))
    assert source.fingerprint
    (tmp_path / "b.txt").unlink()
    assert "b.txt" in outcome(source, tmp_path / "cache")
    assert not list(tmp_path.glob("cache/*"))


def test_ids_out_of_range_in_a_prepared_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Small files are noticed when the folder is found; of large ones, the first batch says."""
    (tmp_path / "a.txt").write_text("some text " * 300)
    source = FilesCorpus((str(tmp_path / "a.txt"),))

    def prepared_text() -> Path:
        return prepare(source, tmp_path / "cache", tokenizer=BYTES, vocab_size=None)

    folder = prepared_text()
    tokens = np.fromfile(folder / "train" / "tokens.bin", np.uint16)
    harmed = tokens.copy()
    harmed[7] = 5_000
    harmed.tofile(folder / "train" / "tokens.bin")
    assert prepared_text() == folder
    assert (folder / "train" / "tokens.bin").read_bytes() == tokens.tobytes()
    assert f"{folder} are damaged (train/tokens.bin has other bytes" in capsys.readouterr().out
    harmed.tofile(folder / "train" / "tokens.bin")
    monkeypatch.setattr(prepared.checksums, "SUMMED_UP_TO", 0)
    data = TextDataModule(
        files=str(tmp_path / "a.txt"),
        tokenizer=str(folder / "tokenizer.json"),
        cache_dir=str(tmp_path / "cache"),
        max_length=64,
        tokens_per_batch=256,
    )
    data.prepare_data()
    with pytest.raises(UserError, match=r"token id 5000 is outside .*vocabulary of 260") as caught:
        list(data.train_dataloader())
    assert str(folder / "train" / "tokens.bin") in str(caught.value)


@pytest.mark.parametrize("document", ["file", "line"])
@pytest.mark.parametrize("copies", [300, pytest.param(1_200, marks=pytest.mark.slow)])
def test_a_line_of_many_megabytes_takes_little_memory(
    tmp_path: Path, document: str, copies: int
) -> None:
    import tracemalloc

    with open(tmp_path / "a.txt", "w") as file:
        for n in range(copies):
            file.write(f"word {n} " * 10_000)  # 27 MB in all, or 115
    source = FilesCorpus((str(tmp_path / "a.txt"),), rule=DocumentRule(document))  # type: ignore[arg-type]
    tracemalloc.start()
    size = sum(len(document.text) for document in reading.read(source, About()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size == (tmp_path / "a.txt").stat().st_size > 25_000_000
    assert peak < 25_000_000
