"""Lines for people."""

import pytest

from lightning_embed.console import duration, say, short
from lightning_embed.processes import is_main_process


@pytest.fixture(autouse=True)
def one_process(monkeypatch) -> None:
    for name in ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK"):
        monkeypatch.delenv(name, raising=False)


def test_a_line_is_label_and_text(capsys) -> None:
    say("corpus", "5 documents")
    say("", "and more")
    assert capsys.readouterr().out == "corpus   5 documents\n         and more\n"


@pytest.mark.parametrize("name", ["LOCAL_RANK", "NODE_RANK", "GROUP_RANK"])
def test_one_process_talks(monkeypatch, capsys, name) -> None:
    monkeypatch.setenv(name, "0")
    assert is_main_process()
    monkeypatch.setenv(name, "1")
    assert not is_main_process()
    say("corpus", "5 documents")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (187, "3:07"), (3599.9, "1:00:00")],
)
def test_duration(seconds, text) -> None:
    assert duration(seconds) == text
    assert duration(3600 + 125) == "1:02:05"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (950, "950"), (8_700, "8.7 k"), (2e6, "2.0 M"), (1.3e9, "1.3 G")],
)
def test_short(number, text) -> None:
    assert short(number) == text
