"""Signals while a library holds the main thread, and while text is tokenised."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lightning_embed import cli
from lightning_embed.interrupts import Ended, Later, heeded_later, leave
from lightning_embed.sources.source import About, Document
from lightning_embed.tokens import encoding, trained
from lightning_embed.tokens.prepared import prepare
from lightning_embed.tokens.split_writer import SplitWriter
from lightning_embed.tokens.tokenizer import TextTokenizer


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """As the command line has them."""
    before = cli._end_on_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def asked() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_is_told_at_once_and_heeded_behind_the_block() -> None:
    told = list[str]()
    with pytest.raises(Ended) as ended, heeded_later(lambda name, later: told.append(name)):
        asked()
        time.sleep(0.2)
        assert told == ["SIGTERM"]
    assert ended.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is leave


def test_who_is_fed_stops_at_the_next_item() -> None:
    taken = list[int]()
    with pytest.raises(Ended), heeded_later(lambda *told: None) as later:
        for item in later.until(range(1_000)):
            taken.append(item)
            if item == 3:
                asked()
            time.sleep(0.02)
    assert 4 <= len(taken) < 900


def test_handlers_of_others_stay() -> None:
    seen, before = list[int](), signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    with heeded_later(lambda *told: None) as later:
        asked()
    assert seen == [signal.SIGTERM] and not later.number
    signal.signal(signal.SIGTERM, before)


def test_ctrl_c_in_a_program_without_our_handlers() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt), heeded_later(lambda *told: None):
        os.kill(os.getpid(), signal.SIGINT)


class Text:
    fingerprint = "text"

    def __init__(self, at: int = -1) -> None:
        self.at = at

    def documents(self, about: About) -> Iterator[Document]:
        about.title = "text"
        for n in range(2_000):
            if n == self.at:
                asked()
            yield Document(f"number {n} is {n * n}\n", f"s{n % 7}", n % 7 == 0)


def stopped(source: Any, cache: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Ended, str]:
    with pytest.raises(Ended) as ended:
        prepare(source, cache, tokenizer="bpe", vocab_size=300)
    return ended.value, capsys.readouterr().out


BY = "by SIGTERM while the text was tokenised\n"


def test_stopped_while_the_tokenizer_is_fed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trained, "HELD_CHARACTERS", 2_000)  # the rest is read while it is trained
    slow = Text(400)
    error, out = stopped(slow, tmp_path, capsys)
    assert (
        out == f"stopping by SIGTERM\nstopped  {BY}kept     nothing: the same command begins anew\n"
    )
    assert error.told and not error.goes_on and not list(tmp_path.iterdir())


def test_stopped_where_the_library_has_all_text_keeps_the_tokenizer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = TextTokenizer.train

    def learning(texts: Any, *args: Any, **more: Any) -> TextTokenizer:
        made = train(texts, *args, **more)
        asked()
        time.sleep(0.1)
        return made

    with monkeypatch.context() as patch:
        patch.setattr(TextTokenizer, "train", learning)
        error, out = stopped(Text(), tmp_path, capsys)
    assert "stopping by SIGTERM once the tokenizer is made" in out
    assert f"stopped  {BY}kept     the tokenizer: the same command goes on with it\n" in out
    assert error.goes_on

    def never(*args: Any, **more: Any) -> None:
        raise AssertionError("the tokenizer is kept")

    monkeypatch.setattr(TextTokenizer, "train", never)
    assert prepare(Text(), tmp_path, tokenizer="bpe", vocab_size=300).is_dir()


def test_stopped_while_text_is_encoded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "DOCUMENTS_AT_ONCE", 50)
    monkeypatch.setattr(encoding, "SHARD", 5_000)
    write, calls = SplitWriter.write, list[int]()

    def writing(self: SplitWriter, *args: Any) -> None:
        write(self, *args)
        calls.append(1)
        if len(calls) == 30:
            asked()

    with monkeypatch.context() as patch:
        patch.setattr(SplitWriter, "write", writing)
        error, out = stopped(Text(), tmp_path, capsys)
    assert f"stopped  {BY}kept     " in out and "the same command goes on there" in out
    assert error.goes_on and "note" not in out
    assert prepare(Text(), tmp_path, tokenizer="bpe", vocab_size=300).is_dir()


def test_the_command_that_goes_on_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: str, args: list[str]) -> None:
        error = Ended(130)
        error.goes_on = True
        raise error

    monkeypatch.setattr(cli, "_run", run)
    with pytest.raises(SystemExit) as ended:
        cli.main(["fit", "--data.files", "a b"])
    first, second = capsys.readouterr().out.splitlines()
    assert first == "stopped  by SIGINT" and ended.value.code == 130
    assert second.startswith("go on") and second.endswith("fit --data.files 'a b'")


def test_later_knows_that_all_was_taken() -> None:
    later = Later()
    assert list(later.until([1, 2])) == [1, 2] and later.fed
