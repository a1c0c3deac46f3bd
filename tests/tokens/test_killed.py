"""Preparing that is killed, and gone on with; two runs that want the same tokens."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_embed.errors import UserError
from lightning_embed.sources.source import About, Document
from lightning_embed.tokens import checksums, encoding, joints, lock, reading, work
from lightning_embed.tokens.prepared import damage, open_prepared, prepare
from lightning_embed.tokens.split_writer import SplitWriter
from lightning_embed.tokens.tokenizer import TextTokenizer
from lightning_embed.tokens.work import Work, lock_beside, work_beside


class Killed(BaseException):
    pass


class Story:
    """Documents of two splits, some of them longer than those that are encoded whole."""

    fingerprint = "story"
    n_bytes = 5_000

    def __init__(self, number: int = 60) -> None:
        self.number, self.read = number, 0

    def documents(self, about: About) -> Iterator[Document]:
        self.read += 1
        about.title = "story"
        for i in range(self.number):
            lines = 40 if i % 20 == 13 else 1
            text = "".join(f"text {i} of ä number {i * n}\n" for n in range(i, i + lines))
            yield Document(text, f"s{i % 7}", i % 7 in (0, 3) or i == 9)
            about.counts["empty documents"] += i % 3 == 0
        about.note_set_aside()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 5 documents, shards of some batches, documents of 1,000 characters in parts."""
    monkeypatch.setattr(encoding, "DOCUMENTS_AT_ONCE", 5)
    monkeypatch.setattr(encoding, "SHARD", 300)
    monkeypatch.setattr(reading, "LONGEST_WHOLE", 500)
    monkeypatch.setattr(reading, "PART", 200)
    monkeypatch.setattr(joints, "WINDOW", 50)
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(lock, "FIRST_WORD", 0.0)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # as nobody pulls the plug


def made(source: Any, cache: Path, tokenizer: str = "bpe") -> Path:
    return prepare(source, cache, tokenizer=tokenizer, vocab_size=None)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(params=["bpe", "characters"])
def tokenizer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that were encoded."""
    found = list[str]()
    encode = TextTokenizer.encode_documents

    def noting(self: TextTokenizer, texts: list[str], begins: list[bool]) -> list[np.ndarray]:
        found.extend(texts)
        return encode(self, texts, begins)

    monkeypatch.setattr(TextTokenizer, "encode_documents", noting)
    return found


def killed_at(
    call: int, monkeypatch: pytest.MonkeyPatch, source: Any, cache: Path, tokenizer: str = "bpe"
) -> Work:
    """Die in the `call`th writing, when the training part of a batch is on the disk."""
    write, calls = SplitWriter.write, 0

    def dying(self: SplitWriter, *args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            for file in self._files.values():
                file.write(b"half")
                file.flush()
            raise Killed
        write(self, *args)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(SplitWriter, "write", dying)
        made(source, cache, tokenizer)
    (left,) = cache.glob(".*.work")
    return Work(left)


def begun(left: Work) -> work.Progress:
    progress = left.begun()
    assert progress is not None
    return progress


@pytest.mark.parametrize("call", [8, 9, 16, 23, 30])
def test_a_killed_run_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoded: list[str], call: int, tokenizer: str
) -> None:
    whole = made(Story(), tmp_path / "whole", tokenizer)
    everything = list(encoded)
    left = killed_at(call, monkeypatch, Story(), tmp_path / "cache", tokenizer)
    progress = begun(left)
    assert progress.items > 0 and call // 2 * 5 - progress.items <= 10  # two batches are a shard
    encoded.clear()

    def train_again(*args: Any) -> None:
        raise AssertionError("the tokenizer is kept")

    monkeypatch.setattr(TextTokenizer, "train", train_again)
    monkeypatch.setattr(TextTokenizer, "characters", train_again)
    found = made(Story(), tmp_path / "cache", tokenizer)
    assert contents(found) == contents(whole)
    assert encoded == everything[progress.items :]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [found.name]


def test_killed_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = made(Story(), tmp_path / "whole")
    assert capsys.readouterr().out == ""
    for call in (8, 6, 6, 6):
        killed_at(call, monkeypatch, Story(), tmp_path / "cache")
    assert contents(made(Story(), tmp_path / "cache")) == contents(whole)
    said = capsys.readouterr().out
    assert len(re.findall(r"note .*B of text are tokenised: the same command goes on", said)) == 4
    assert len(re.findall(r"tokens .*go on from .*B of text, which a run before did", said)) == 4


@pytest.mark.parametrize("limit", [200, 700, 1_500, 10**6])
def test_text_that_is_kept_or_dropped(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    limit: int,
) -> None:
    monkeypatch.setattr(encoding, "KEEP_TEXT_UP_TO", limit)
    whole = made(Story(), tmp_path / "whole")
    for call in range(8, 15):  # some right after the text became too large
        killed_at(call, monkeypatch, Story(), tmp_path / str(call))
        found = made(Story(), tmp_path / str(call))
        assert contents(found) == contents(whole)
        assert (found / "train" / "text.bin").exists() == (limit == 10**6)
    assert "of no use" not in capsys.readouterr().out


PROGRAM = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_killed import Story, encoding, joints, made, reading
from lightning_embed.tokens.split_writer import SplitWriter
from lightning_embed.tokens.work import Work
encoding.DOCUMENTS_AT_ONCE, encoding.SHARD = 5, 300
reading.LONGEST_WHOLE, reading.PART, joints.WINDOW = 500, 200, 50
owner, name = {{"between": (Work, "save"), "within": (SplitWriter, "write")}}[sys.argv[2]]
function, calls = getattr(owner, name), 0
def dying(*args):
    global calls
    function(*args)
    calls += 1
    if calls == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
setattr(owner, name, dying)
made(Story(), Path(sys.argv[1]))
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
@pytest.mark.parametrize(("where", "call", "redone"), [("between", 4, 0), ("within", 15, 10)])
def test_sigkill(tmp_path: Path, encoded: list[str], where: str, call: int, redone: int) -> None:
    program = PROGRAM.format(tests=str(Path(__file__).parent))
    arguments = [str(tmp_path / "cache"), where, str(call)]
    ended = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    whole = made(Story(), tmp_path / "whole")
    everything = list(encoded)
    (left,) = (tmp_path / "cache").glob(".*.work")
    done = begun(Work(left)).items
    assert done >= 10
    encoded.clear()
    found = made(Story(), tmp_path / "cache")
    assert contents(found) == contents(whole) and encoded == everything[done:]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [found.name]


# -- what does not serve -------------------------------------------------------------------------


def test_another_text_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A data set on the Hub has the fingerprint of its name."""

    class Other(Story):
        def documents(self, about: About) -> Iterator[Document]:
            for document in super().documents(about):
                yield document._replace(text=document.text.replace("text 1 ", "word 1 "))

    whole = made(Other(), tmp_path / "whole")
    for shorter in (False, True):
        killed_at(20, monkeypatch, Story(), tmp_path / "cache")
        other: Any = Story(5) if shorter else Other()
        found = made(other, tmp_path / "cache")
        assert "(the text is another one now): begun anew" in capsys.readouterr().out
        if not shorter:
            assert contents(found) == contents(whole)
            for path in sorted(found.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            found.rmdir()


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


@pytest.mark.parametrize("harm", [Path.unlink, cut_short])
@pytest.mark.parametrize(
    "name",
    [
        "progress.json",
        "train.rows",
        "train.names",
        "folder/train/tokens.bin",
        "folder/validation/text.bin",
        "folder/tokenizer.json",
    ],
)
def test_damaged_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, harm: Callable[[Path], None]
) -> None:
    whole = made(Story(), tmp_path / "whole")
    left = killed_at(20, monkeypatch, Story(), tmp_path / "cache")
    harm(left.path / name)
    assert contents(made(Story(), tmp_path / "cache")) == contents(whole)


def test_work_of_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = killed_at(20, monkeypatch, Story(), tmp_path)
    monkeypatch.setattr(work, "VERSION", 2)
    assert left.begun() is None
    found = made(Story(), tmp_path)
    assert damage(found) == "" and not left.path.exists()


# -- litter --------------------------------------------------------------------------------------


class Another(Story):
    fingerprint = "another"


def test_litter_is_swept_and_work_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = killed_at(20, monkeypatch, Story(), tmp_path)
    nothing_safe = work_beside(tmp_path / ("a" * 16))
    nothing_safe.empty()
    finished = work_beside(tmp_path / ("b" * 16))
    left.path.rename(finished.path)
    (tmp_path / ("b" * 16)).mkdir()
    lock_beside(tmp_path / ("c" * 16)).write_text("{}")
    left = killed_at(20, monkeypatch, Story(), tmp_path)
    foreign = {".thesis.work", ".git.lock"}  # of somebody else
    for name in foreign:
        (tmp_path / name).mkdir()
    running = work_beside(tmp_path / ("d" * 16))
    running.empty()
    with lock.locked(lock_beside(tmp_path / ("d" * 16)), "d"):
        found = made(Another(), tmp_path)
        names = {path.name for path in tmp_path.iterdir()}
        held = lock_beside(tmp_path / ("d" * 16)).name
        assert names == {found.name, "b" * 16, *foreign, left.path.name, running.path.name, held}
    os.utime(left.path / work.PROGRESS, (0, 0))  # nobody went on with it
    made(Another(), tmp_path, "characters")
    assert not left.path.exists() and not running.path.exists()


# -- two at once ---------------------------------------------------------------------------------


class Slow(Story):
    """A story that goes on after so many documents when it is let."""

    def __init__(self, after: int, error: BaseException | None = None) -> None:
        super().__init__()
        self.after, self.error = after, error
        self.begun, self.let = threading.Event(), threading.Event()

    def documents(self, about: About) -> Iterator[Document]:
        for number, document in enumerate(super().documents(about)):
            if number == self.after:
                self.begun.set()
                assert self.let.wait(20)
                if self.error is not None:
                    raise self.error
            yield document


@pytest.fixture
def at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Slow, Any], tuple[list[str], Path]]]:
    """Has one prepare a story while another wants it, too: returns what that one said, and the
    folder it got."""
    threads = list[threading.Thread]()

    def both(first: Slow, second: Any) -> tuple[list[str], Path]:
        TextTokenizer.characters(["abc"]).save(tmp_path / "own.json")
        own, said = str(tmp_path / "own.json"), list[str]()

        def prepare_first() -> None:
            with suppress(Killed, UserError):
                made(first, tmp_path / "cache", own)

        def say(label: str, text: str, anywhere: bool) -> None:
            said.append(f"{label} {text}")
            first.let.set()

        monkeypatch.setattr(lock, "say", say)
        threads.append(threading.Thread(target=prepare_first))
        threads[0].start()
        assert first.begun.wait(20)
        return said, made(second, tmp_path / "cache", own)

    yield both
    for thread in threads:
        thread.join(20)


def test_one_prepares_and_the_other_waits(at_once: Any) -> None:
    second = Story()
    said, found = at_once(Slow(50), second)
    assert second.read == 0 and damage(found) == ""
    assert said[0].startswith(
        f"waiting for the tokens {found.name}, which process {os.getpid()} on"
    )
    assert re.search(r"prepares: \d+ % so far$", said[0])
    assert [path.name for path in found.parent.iterdir()] == [found.name]


def test_the_other_fails_with_it(at_once: Any, tmp_path: Path) -> None:
    second = Story()
    with pytest.raises(UserError, match=rf"no such word \(process {os.getpid()} on .*\)"):
        at_once(Slow(0, UserError("no such word")), second)
    assert second.read == 0 and list((tmp_path / "cache").iterdir()) == []


def test_the_other_takes_over_where_it_was_killed(
    at_once: Any, tmp_path: Path, encoded: list[str]
) -> None:
    second = Story()
    _, found = at_once(Slow(50, Killed()), second)
    assert second.read == 1 and damage(found) == ""
    twice = len(encoded) - len(set(encoded))
    assert len(encoded) > 0 and twice < 30  # what was encoded ahead of the last shard
    TextTokenizer.characters(["abc"]).save(tmp_path / "own.json")
    whole = made(Story(), tmp_path / "whole", str(tmp_path / "own.json"))
    assert contents(found) == contents(whole)


def test_waiting_ends_with_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(lock, "say", interrupt)
    folder = made(Story(), tmp_path / "whole")
    path = lock_beside(tmp_path / folder.name)
    with lock.locked(path, "it"):
        with pytest.raises(KeyboardInterrupt):
            made(Story(), tmp_path)
        assert path.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


# -- ids of one byte -----------------------------------------------------------------------------


@pytest.mark.parametrize("checked", [True, False])
def test_folders_of_two_bytes_an_id_serve_on(
    tmp_path: Path, checked: bool, encoded: list[str]
) -> None:
    folder = made(Story(), tmp_path, "characters")
    now = open_prepared(folder)
    assert now.train.tokens.dtype == np.uint8
    (folder / checksums.CHECKSUMS).unlink()
    ids = np.array(now.train.tokens)
    for split in (now.train, now.validation):
        wider = split.tokens.astype(np.uint16)
        (split.text_file.parent / "tokens.bin").write_bytes(wider.tobytes())
    if checked:
        checksums.note_checksums(folder)
    encoded.clear()
    assert made(Story(), tmp_path, "characters") == folder and not encoded
    before = open_prepared(folder)
    assert before.train.tokens.dtype == np.uint16
    assert (before.train.tokens == ids).all()
    report = json.loads((folder / "report.json").read_text())
    assert report["splits"]["train"]["tokens"] == len(before.train.tokens)
