"""Files by name, glob, folder and standard input; which of them count, which are left out."""

import io
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from reading import read_all

from lightning_embed.errors import UserError
from lightning_embed.sources import finding
from lightning_embed.sources.corpus import choose_source
from lightning_embed.sources.files import FilesCorpus
from lightning_embed.sources.finding import find_files, is_standard_input, relative_names
from lightning_embed.sources.source import About
from lightning_embed.sources.texts import DocumentRule


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"the text of {name}\n")


def refused(source: FilesCorpus) -> str:
    with pytest.raises((UserError, OSError)) as caught:
        list(source.documents(About()))
    line = str(caught.value)
    assert "\n" not in line
    return line


# -- folders ---------------------------------------------------------------------------------------


def test_a_folder_means_what_is_known_in_it(tmp_path: Path) -> None:
    write(tmp_path, "b.md", "a.py", "README", "x.png", "y.bin", ".git/d.txt", ".e")
    os.mkfifo(tmp_path / "pipe.txt")
    corpus = read_all(FilesCorpus((str(tmp_path),)))
    assert corpus.counts["files"] == 3 and corpus.counts["files left out"] == 2
    assert corpus.train_sources == ["README", "a.py", "b.md"]
    (note,) = [line for line in corpus.notes if line.startswith("left out")]
    assert note.startswith("left out: 2 files of which no format is known (")
    assert "x.png" in note and "y.bin" in note
    everything = read_all(FilesCorpus((str(tmp_path),), format="text"))
    assert everything.counts["files"] == 5 and not everything.counts["files left out"]


def test_links_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", "sub/b.txt")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "again.txt").symlink_to(tmp_path / "a.txt")
    (tmp_path / "own.txt").symlink_to(tmp_path / "own.txt")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere.txt")
    assert find_files([str(tmp_path)]) == [tmp_path / "a.txt", tmp_path / "sub" / "b.txt"]
    with pytest.raises(FileNotFoundError, match=r"own\.txt': no such file"):
        find_files([str(tmp_path / "own.txt")])


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.txt", "sub/b.txt")
    scan = os.scandir

    def denied(path: str) -> object:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert str(tmp_path / "sub") in refused(FilesCorpus((str(tmp_path),)))


def test_a_file_that_vanishes(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", "b.txt")
    source = FilesCorpus((str(tmp_path / "*.txt"),))
    assert source.fingerprint
    (tmp_path / "b.txt").unlink()
    assert str(tmp_path / "b.txt") in refused(source)


def test_an_unknown_suffix_is_text_only_when_asked(tmp_path: Path) -> None:
    write(tmp_path, "a.xyz")
    name = str(tmp_path / "a.xyz")
    line = refused(FilesCorpus((name,)))
    assert line.startswith(f"{name}: what .xyz files hold is not known; if it is text, say ")
    asked = FilesCorpus((name,), format="text")
    assert "".join(read_all(asked).texts) == "the text of a.xyz\n"
    # what was read as text before it had to be asked for is found again
    (tmp_path / "a.xyz").rename(tmp_path / "a.txt")
    plain = FilesCorpus((str(tmp_path / "a.txt"),))
    assert plain.fingerprint == FilesCorpus(plain.files, format="text").fingerprint
    assert FilesCorpus(plain.files, format="jsonl").fingerprint != plain.fingerprint


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    for n in range(25):
        with open(os.path.join(os.fsencode(tmp_path), b"\xff%d.txt" % n), "w") as file:
            file.write(f"text {n}\n")
    source = FilesCorpus((str(tmp_path / "*.txt"),))
    corpus = read_all(source)
    assert source.fingerprint and corpus.counts["validation documents"]
    for name in (*corpus.train_sources, corpus.title, source.name_of_text):
        assert name.encode()
    assert r"\udcff0.txt" in [*corpus.train_sources, *corpus.validation_sources]


# -- standard input --------------------------------------------------------------------------------


@pytest.fixture
def standard_input(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.BytesIO]:
    given = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=given))
    finding._kept_input.cache_clear()
    yield given
    finding._kept_input.cache_clear()


def fill(stream: io.BytesIO, text: bytes) -> None:
    stream.write(text)
    stream.seek(0)


def test_standard_input_is_text_and_may_be_read_twice(standard_input: io.BytesIO) -> None:
    fill(standard_input, b"some text\r\n" * 50)
    source = FilesCorpus(("-",))
    assert "".join(read_all(source).texts) == "some text\r\n" * 50
    assert read_all(source) == read_all(FilesCorpus(("-",)))
    assert read_all(source).title == "-" and source.name_of_text == "--data.files -"
    first = source.fingerprint
    finding._kept_input.cache_clear()
    standard_input.seek(0)
    assert FilesCorpus(("-",)).fingerprint == first  # wherever it is kept


def test_standard_input_of_another_format_and_beside_files(
    tmp_path: Path, standard_input: io.BytesIO
) -> None:
    fill(standard_input, b'{"text": "from there"}\n')
    assert "".join(read_all(FilesCorpus(("-",), format="jsonl")).texts) == "from there"
    write(tmp_path, "-", "a.txt")
    paths = find_files(["-", str(tmp_path / "-"), str(tmp_path / "a.txt")])
    assert [is_standard_input(path) for path in paths] == [True, False, False]
    assert relative_names(paths) == ["-", "-", "a.txt"]


def test_no_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    finding._kept_input.cache_clear()
    monkeypatch.setattr(sys, "stdin", None)
    assert "there is no standard input" in refused(FilesCorpus(("-",)))


# -- options that concern other files --------------------------------------------------------------


def test_columns_and_documents_where_there_are_none(tmp_path: Path) -> None:
    write(tmp_path, "a.txt")
    (tmp_path / "a.jsonl").write_text('{"body": "some text"}\n')
    text, rows = str(tmp_path / "a.txt"), str(tmp_path / "a.jsonl")
    line = refused(FilesCorpus((text,), "body"))
    assert line.startswith(f"--data.text_column body needs files with columns, and {text} is text")
    line = refused(FilesCorpus((rows,), "body", rule=DocumentRule("line")))
    assert line.startswith(f"--data.document line is for text, and of {rows} each row is")
    both = read_all(FilesCorpus((text, rows), "body", rule=DocumentRule("line")))
    assert "".join(both.texts) == "the text of a.txtsome text"


def test_options_of_files_without_files() -> None:
    for options in ({"format": "text"}, {"document": "line"}, {"text_column": "body"}):
        with pytest.raises(UserError, match=f"--data.{next(iter(options))}"):
            choose_source(**options)  # type: ignore[arg-type]
    assert choose_source(hub="a/b", text_column="body")


def test_each_rule_has_its_own_fingerprint(tmp_path: Path) -> None:
    write(tmp_path, "a.txt")
    rules = [
        DocumentRule(),
        DocumentRule("line"),
        DocumentRule("paragraph"),
        DocumentRule("separator", "|"),
        DocumentRule("separator", "||"),
    ]
    sources = [FilesCorpus((str(tmp_path / "a.txt"),), rule=rule) for rule in rules]
    assert len({source.fingerprint for source in sources}) == len(rules)
    assert len({source.name_of_text for source in sources}) == len(rules)
