"""The default corpus, on small made-up libraries and once on the real one."""

import hashlib
import json
from pathlib import Path

import pytest
from reading import Corpus, read_all

from lightning_embed.errors import UserError
from lightning_embed.sources import stdlib
from lightning_embed.sources.held_out import is_held_out
from lightning_embed.sources.stdlib import StdlibCorpus

DECORATED = b'''"""Docstring."""
import functools

TABLE = {1: 2}

# about f
@functools.cache
@(
    functools.cache
)
def f(x):
    return x + 1\x0c

class C:
    def method(self):
        return """
top = 0
def not_a_function(): pass
"""


async def g(): pass  # one line
'''


def library(root: Path, files: dict[str, bytes]) -> Path:
    for name, source in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(source)
    return root


def cut(sources: dict[str, bytes]) -> Corpus:
    corpus = Corpus()
    for text, path, held_out, *_ in stdlib.cut(sources, corpus.counts):
        (corpus.validation if held_out else corpus.train).append(text)
        (corpus.validation_sources if held_out else corpus.train_sources).append(path)
    return corpus


def held_out(path: str) -> bool:
    return int(hashlib.md5(path.encode()).hexdigest(), 16) % 10 == 0


HELD = next(f"json/m{i}.py" for i in range(100) if held_out(f"json/m{i}.py"))
TRAINED = next(f"json/m{i}.py" for i in range(100) if not held_out(f"json/m{i}.py"))


def function(name: str, size: int = 30) -> str:
    return f"def {name}():\n    return '{'x' * (size - len(name) - 22)}'"


def test_a_document_is_a_function_or_class_with_its_decorators() -> None:
    documents, rest = stdlib.split_source(DECORATED)
    assert [d.split("\n")[0] for d in documents] == [
        "@functools.cache",
        "class C:",
        "async def g(): pass  # one line",
    ]
    assert documents[0].endswith("    return x + 1\x0c")  # a form feed ends no line
    assert documents[1].endswith('def not_a_function(): pass\n"""')
    assert "import functools\n\nTABLE = {1: 2}\n\n# about f" in rest
    assert "return" not in rest and "@" not in rest


def test_every_line_is_in_a_document_or_in_the_rest() -> None:
    source = Path(json.__file__).read_bytes()
    documents, rest = stdlib.split_source(source)
    lines = sorted("\n".join([*documents, rest]).split("\n"))
    assert len(documents) > 3 and lines == sorted(source.decode().split("\n"))


def test_other_encodings_and_line_ends() -> None:
    documents, _ = stdlib.split_source(
        "# coding: latin-1\r\ndef f():\r\n    'ä'\r\n".encode("latin-1")
    )
    assert documents == ["def f():\n    'ä'"]
    documents, _ = stdlib.split_source(b"\xef\xbb\xbfdef f(): pass\n")
    assert documents == ["def f(): pass"]


def test_only_the_library_own_files_are_read(tmp_path: Path) -> None:
    code = b"def f(): pass\n"
    wanted = ["abc.py", "ctypes/util.py", "email/mime/text.py", "json/decoder.py"]
    others = [
        "not_of_the_library.py",
        "site-packages/json/decoder.py",
        "test/test_json.py",
        "ctypes/test/test_x.py",
        "json/tests/x.py",
        "idlelib/run.py",
        "lib2to3/main.py",
        "json/notes.txt",
    ]
    # a home folder called test, or a prefix with site-packages in it, must not empty the corpus
    for home in ("test/lib", "site-packages/tests/lib"):
        root = library(tmp_path / home, dict.fromkeys([*wanted, *others], code))
        assert list(stdlib.read_sources(root, 1)) == wanted


def test_the_split_is_by_the_md5_of_the_relative_path() -> None:
    assert is_held_out(HELD) and not is_held_out(TRAINED)
    # the rule must never move: another split would make old figures incomparable
    paths = ["tarfile.py", "json/decoder.py", "abc.py", "ü/é.py"]
    assert [is_held_out(path) for path in paths] == [True, False, False, False]
    pieces = cut({HELD: function("h").encode(), TRAINED: function("t").encode()})
    assert (pieces.validation, pieces.validation_sources) == ([function("h")], [HELD])
    assert (pieces.train, pieces.train_sources) == ([function("t")], [TRAINED])


def test_copies_go_before_the_split_and_the_first_path_stays() -> None:
    sources = dict.fromkeys(sorted([HELD, TRAINED, "abc.py"]), function("same").encode())
    pieces = cut(sources)
    assert pieces.texts == [function("same")] and pieces.train_sources == ["abc.py"]
    assert pieces.counts["exact copies"] == 2
    assert pieces.counts["exact copies bytes"] == 2 * len(function("same"))


def test_at_most_20_kb_of_a_file_are_held_out_and_the_rest_is_not_trained_on() -> None:
    functions = [function(f"f{i}", 7_000) for i in range(4)] + [function("small", 100)]
    source = "\n".join(functions).encode()
    pieces = cut({HELD: source})
    assert pieces.validation == [*functions[:2], functions[4]]
    assert not pieces.train
    assert pieces.counts["held-out documents left out"] == 2
    assert pieces.counts["held-out bytes left out"] == 2 * len(functions[2])
    assert len(cut({TRAINED: source}).train) == 5


def test_what_does_not_parse_is_counted() -> None:
    pieces = cut(
        {
            "abc.py": b"def f(:\n",
            "bad.py": b"\xff\xfe",
            "nul.py": b"x = '\0'",
            TRAINED: b"def f(): pass\n",
        }
    )
    assert pieces.counts["files that do not parse"] == 3
    assert pieces.counts["files without module code"] == 1
    assert len(pieces.train) == 1


def test_module_code_is_left_out_and_counted() -> None:
    corpus = cut({TRAINED: DECORATED})
    assert corpus.counts["module code bytes left out"] > 50
    assert not any("TABLE" in text for text in corpus.texts)


def test_too_little_source_points_to_own_files(tmp_path: Path) -> None:
    library(tmp_path, {"abc.py": b"def f(): pass\n"})
    for root in (tmp_path, tmp_path / "not there"):
        for use in (read_all, lambda source: source.fingerprint):
            with pytest.raises(UserError, match=r"only [\d]+ bytes .* --data\.files$") as caught:
                use(StdlibCorpus(root=root))
            assert "\n" not in str(caught.value)


def test_the_fingerprint_follows_contents_and_names(tmp_path: Path) -> None:
    def fingerprint(root: Path) -> str:
        return StdlibCorpus(root=root, minimum_bytes=1).fingerprint

    root = library(tmp_path / "a", {"abc.py": b"def f(): pass\n", "ast.py": b""})
    first = fingerprint(root)
    (root / "ast.py").rename(root / "bdb.py")
    renamed = fingerprint(root)
    (root / "abc.py").write_bytes(b"def f(): pess\n")
    assert len({first, renamed, fingerprint(root)}) == 3
    moved = library(tmp_path / "b", {"abc.py": b"def f(): pass\n", "ast.py": b""})
    # as version 0.1 had it: tokens that were prepared then are found
    assert fingerprint(moved) == first == "18715c56cdf7125c"


def test_the_real_library() -> None:
    corpus = read_all(StdlibCorpus())
    assert len(set(corpus.texts)) == len(corpus.texts) == corpus.counts["documents"] > 3_000
    assert corpus.counts["bytes"] == sum(len(t.encode()) for t in corpus.texts) > 4_000_000
    assert 0.01 < corpus.counts["validation bytes"] / corpus.counts["bytes"] < 0.2
    assert not set(corpus.train_sources) & set(corpus.validation_sources)
    assert corpus.title.startswith("standard library of Python 3.")
    assert "exact copies" in corpus.notes[0] and "%" in corpus.notes[1]
