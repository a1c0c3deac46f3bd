"""Lines for people."""

import re
import shlex
import subprocess

import pytest

from lightning_embed.console import cells, duration, printable, say, say_command, short, wrapped
from lightning_embed.processes import is_main_process


@pytest.fixture(autouse=True)
def uncut_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here they are cut."""
    monkeypatch.delenv("COLUMNS", raising=False)


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


@pytest.mark.parametrize("columns", [None, 30, 40, 80, 1000])
def test_long_lines_are_cut_between_words(monkeypatch, capsys, columns) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", str(columns))
    path = "runs/an/der/Elbe/best.ckpt"
    text = "loss 3.195   perplexity 24.4   " + "ein Text über 日本 " * 20 + path
    say("held out", text)
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("held out loss 3.195")
    assert all(line.startswith(" " * 9) and line[9] != " " for line in rest)
    assert max(cells(line) for line in (first, *rest)) <= max(columns or 100, 9 + len(path))
    assert " ".join((first[9:] + "".join(rest)).split()) == " ".join(text.split())
    assert bool(rest) == (columns != 1000)


def test_lines_are_rather_cut_where_columns_are() -> None:
    assert wrapped("one two   three four five", 22) == ["one two   three four", "five"]
    assert wrapped("one two three   four five", 22) == ["one two three", "four five"]
    assert wrapped("    indented", 100) == ["    indented"] and wrapped("", 100) == [""]


def test_control_characters_are_told_by_number(capsys) -> None:
    say("sample", "a\x1b[31mb\tc\rd\x9b")
    assert capsys.readouterr().out == "sample   a\\x1b[31mb    c d\\x9b\n"
    turned, unpaired, joined = "\u202egpj", "\udc80", "a\u200db"
    assert printable(turned + unpaired + joined) == f"\\u202egpj\\udc80{joined}"


@pytest.mark.parametrize("columns", ["30", "60", "100"])
def test_commands_on_several_lines_can_be_pasted(monkeypatch, capsys, columns) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    words = ["printf", "%s|", "--config", "a b/it's.yaml", "--files", "notes/*.md", "--x", "1" * 30]
    say_command("go on", shlex.join(words))
    out = capsys.readouterr().out
    lines = out.splitlines()
    longest = max(len(shlex.quote(word)) for word in words)
    assert len(lines) > 1 and max(map(len, lines)) <= max(int(columns), 9 + longest + 2)
    done = subprocess.run(["sh", "-c", out[9:]], capture_output=True, text=True, check=True)
    assert done.stdout == "|".join(words[2:]) + "|"
    assert not re.search(r"--\w+ \\\n", out) or columns == "30"  # an option has its value
