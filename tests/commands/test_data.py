"""`data list | verify | clean`: what is kept, whether it is whole, and what is removed."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from workshop import Outcome, Workshop, run

from lightning_embed.atomic import work_folder
from lightning_embed.commands import data_clean
from lightning_embed.sources.files import FilesCorpus
from lightning_embed.tokens.prepared import open_prepared, prepare

DAY = 86_400


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two prepared folders, and a file of somebody else."""
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text(f"words of {name}\n" * 200)
        source = FilesCorpus((str(tmp_path / f"{name}.txt"),))
        prepare(source, tmp_path / "cache", tokenizer="characters", vocab_size=None)
    (tmp_path / "cache" / "notes.txt").write_text("not ours")
    return tmp_path / "cache"


def told(verb: str, cache: Path, *args: str) -> Outcome:
    return run("data", verb, "--data.cache_dir", cache, *args)


def listed(cache: Path) -> dict[str, dict[str, object]]:
    return {found["title"]: found for found in json.loads(told("list", cache, "--json").out)}


def keys(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()} - {"notes.txt"}


def damage(folder: Path) -> None:
    path = folder / "train" / "tokens.bin"
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)


def test_list_tells_what_is_kept(cache: Path) -> None:
    found = listed(cache)
    assert set(found) == {"one.txt", "two.txt"}
    one = found["one.txt"]
    folder = Path(str(one["path"]))
    assert folder.name == one["key"] and one["state"] == "whole" and one["problem"] is None
    prepared = open_prepared(folder)
    assert one["vocabulary"] == prepared.tokenizer.vocab_size
    assert one["tokens"] == {
        "train": len(prepared.train.tokens),
        "validation": len(prepared.validation.tokens),
    }
    assert one["bytes"] == sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    line = next(x for x in told("list", cache).out.splitlines() if str(one["key"]) in x)
    assert line.startswith("whole")


def test_opening_is_use_and_leaves_the_checksums(cache: Path) -> None:
    for path in cache.iterdir():
        os.utime(path, (1e9, 1e9))
    key = str(listed(cache)["two.txt"]["key"])
    open_prepared(cache / key)
    found = listed(cache)
    assert list(found) == ["two.txt", "one.txt"]  # the latest used first
    assert time.time() - float(str(found["two.txt"]["used"])) < 1000
    assert told("verify", cache).status == 0


@pytest.mark.parametrize("columns", ["80", "40"])
def test_lines_fit_the_terminal(cache: Path, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    lines = told("list", cache).out.splitlines()
    paths = [line for line in lines if str(cache) in line]  # a long word stays whole
    assert all(len(line) <= int(columns) for line in lines if line not in paths)


def test_verify_names_what_is_damaged(cache: Path) -> None:
    found = told("verify", cache)
    assert found.status == 0 and found.line("verified") == "2 whole, 0 damaged"
    key = str(listed(cache)["one.txt"]["key"])
    damage(cache / key)
    found = told("verify", cache)
    assert found.status == 1 and found.line("verified") == "1 whole, 1 damaged"
    assert found.line("damaged").startswith(key) and "tokens.bin has other bytes" in found.out
    assert told("verify", cache, key[:6]).status == 1
    other = str(listed(cache)["two.txt"]["key"])
    assert told("verify", cache, other).status == 0


def test_clean_removes_what_is_of_no_use(cache: Path) -> None:
    found = listed(cache)
    one, two = (str(found[name]["key"]) for name in ("one.txt", "two.txt"))
    (cache / one / "train" / "offsets.npy").unlink()
    left = cache / ".0123456789abcdef.work"
    left.mkdir()
    with work_folder(cache / "fedcba9876543210") as busy:
        dry = told("clean", cache, "--dry_run")
        assert dry.out.count("remove  ") == 2 and keys(cache) == {one, two, left.name, busy.name}
        assert told("clean", cache, "--yes").status == 0 and keys(cache) == {two, busy.name}
        said = told("clean", cache, "--all", "--dry_run").line("in use")
        assert said == "fedcba9876543210 is used by another process and stays"
    assert (cache / "notes.txt").exists()
    assert told("clean", cache, "--all", "--yes").status == 0
    assert keys(cache) == set() and (cache / "notes.txt").exists()


def test_clean_by_key_and_by_age(cache: Path) -> None:
    found = listed(cache)
    one, two = (str(found[name]["key"]) for name in ("one.txt", "two.txt"))
    os.utime(cache / one, (time.time() - 10 * DAY,) * 2)
    told("clean", cache, "--older_than", "20", "--yes")
    assert keys(cache) == {one, two}
    told("clean", cache, "--older_than", "5", "--yes")
    assert keys(cache) == {two}
    assert told("clean", cache, "--key", two[:5], "--yes").line("removed").endswith("B in 1 folder")
    assert keys(cache) == set()


def test_clean_asks_or_wants_yes(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(cache)
    assert "--yes" in told("clean", cache, "--all").err and keys(cache) == before
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    told("clean", cache, "--all")
    assert keys(cache) == before
    monkeypatch.setattr("builtins.input", lambda question: "y")
    told("clean", cache, "--all")
    assert keys(cache) == set()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not tell")
def test_tokens_that_a_process_has_open_stay(cache: Path) -> None:
    found = listed(cache)
    one, two = (str(found[name]["key"]) for name in ("one.txt", "two.txt"))
    tokens = np.memmap(cache / one / "train" / "tokens.bin", np.uint8, "r")
    said = told("clean", cache, "--all", "--yes")
    assert f"{one} is used by process {os.getpid()}" in said.out and keys(cache) == {one}
    assert len(tokens) and two not in keys(cache)


def test_clean_says_which_run_needs_the_tokens(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.fit("mine", steps=1)
    monkeypatch.setattr(data_clean, "users", lambda path: [])  # this process has them open yet
    said = told("clean", workshop.cache, "--all", "--dry_run", "--runs", str(workshop.root))
    assert "by run mine" in said.out


@pytest.mark.parametrize("verb", ["list", "verify", "clean"])
def test_mistakes(verb: str, tmp_path: Path) -> None:
    assert "there is no such folder" in told(verb, tmp_path / "none").error_line()
    (tmp_path / "file").write_text("")
    assert "it is a file" in told(verb, tmp_path / "file").error_line()
    (tmp_path / "empty").mkdir()
    assert told(verb, tmp_path / "empty").status == 0
    assert "unrecognized" in run("data", verb, "--bad").err


def test_wrong_words(cache: Path) -> None:
    assert "give one of show, list, verify, clean" in run("data", "lsit").error_line()
    assert run("data").status == 2 and run("data", "--help").status == 0
    assert "no tokens with the key zz" in told("verify", cache, "zz").error_line()
    assert "no tokens with the key zz" in told("clean", cache, "--key", "zz").error_line()


def test_a_beginning_of_a_key_names_one(cache: Path) -> None:
    one = str(listed(cache)["one.txt"]["key"])
    assert "is too short" in told("clean", cache, "--key", one[:3], "--yes").error_line()
    (cache / f".{one[:15]}{'0' if one[15] != '0' else '1'}.work").mkdir()
    assert "several keys begin" in told("verify", cache, one[:15]).error_line()
    assert told("verify", cache, one).line("verified") == "1 whole, 0 damaged"
