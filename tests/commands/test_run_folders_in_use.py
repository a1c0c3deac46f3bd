"""Runs of one name one after another and at once, branches, removed folders, places named as in a
shell: what lies where afterwards."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from workshop import APART, ROOT, Workshop, load, run

TWO = ("--trainer.max_steps", "2")


def content(folder: Path) -> dict[str, str]:
    """Every file below a folder, and what is in it."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def assert_is_one_run(folder: Path, steps: int) -> None:
    """One configuration, one process' curves, whole checkpoints."""
    assert len(list(folder.glob("config*.yaml"))) == 1
    writers = {path.name.rpartition(".")[0] for path in folder.glob("events*")}
    assert len({name.rpartition(".")[2] for name in writers}) == 1, writers  # of process numbers
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert load(folder / "checkpoints" / "last.ckpt")["global_step"] == steps


def test_a_free_name_is_taken_and_the_latest_run_gone_on_with(workshop: Workshop) -> None:
    workshop.fit("a", *TWO)
    workshop.fit("a", *TWO)
    second = content(workshop.root / "a-2")
    for path in (workshop.root / "a").iterdir():  # emptied, as by `rm -r runs/a/*`
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    told = workshop.fit("a", "--trainer.max_steps", "3")
    assert told.line("run").startswith(str(workshop.root / "a "))
    shutil.rmtree(workshop.root / "a")
    workshop.fit("a", "--trainer.max_steps", "3")
    assert workshop.runs() == ["a", "a-2"]
    told = workshop.fit("a", "--ckpt_path", "last", "--trainer.max_steps", "4")
    assert str(workshop.checkpoint("a")) in told.line("resume")
    assert content(workshop.root / "a-2") == second


def test_a_branch_leaves_its_origin_untouched_byte_for_byte(workshop: Workshop) -> None:
    workshop.fit("c4", *TWO)
    before = content(workshop.root / "c4")
    best = workshop.checkpoint("c4", "best")
    workshop.fit("branch", "--ckpt_path", best, "--trainer.max_steps", "4")
    assert content(workshop.root / "c4") == before
    assert load(workshop.checkpoint("branch"))["global_step"] == 4
    workshop.fit("branch", "--ckpt_path", "last", "--trainer.max_steps", "5")
    assert content(workshop.root / "c4") == before
    assert workshop.runs() == ["branch", "c4"]


def test_two_runs_of_one_name_started_at_once_are_two(workshop: Workshop, tmp_path: Path) -> None:
    """Neither finds prepared tokens."""
    more = ("--name", "a", *TWO, "--data.cache_dir", tmp_path / "cache")
    command = [sys.executable, str(ROOT / "train.py"), *workshop.arguments("fit", *more)]
    environment = os.environ | APART
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        for _ in range(2)
    ]
    for process in both:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0 and err == b"", out + err
    assert workshop.runs() == ["a", "a-2"]
    for name in workshop.runs():
        assert_is_one_run(workshop.root / name, 2)


def test_places_mean_what_a_shell_makes_of_them(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("RUNS", str(home / "other"))
    monkeypatch.chdir(here)
    told = workshop.run("fit", "--name", "a", *TWO, "--trainer.default_root_dir=~/x")
    assert told.status == 0, told.err
    assert_is_one_run(home / "x" / "a", 2)
    for form in ("~/x/a", "~/x/a/checkpoints", "~/x/a/checkpoints/best.ckpt", "$HOME/x/a"):
        told = run("generate", f"--checkpoint={form}", "--max_new_tokens=2")
        assert told.status == 0, told.err
    (here / "c.yaml").write_text("trainer:\n  default_root_dir: ${RUNS}/deep\n", encoding="utf-8")
    arguments = workshop.arguments("fit", "--config", "c.yaml", "--name", "b", *TWO)
    at = arguments.index("--trainer.default_root_dir")
    told = run(*arguments[:at], *arguments[at + 2 :])
    assert told.status == 0, told.err
    assert_is_one_run(home / "other" / "deep" / "b", 2)
    text = ("--files", workshop.files, "--vocab_size", "300")
    assert run("tokenizer", *text, "--output=~/y.json").status == 0
    assert (home / "y.json").is_file()
    assert [path.name for path in here.iterdir()] == ["c.yaml"]


def test_a_run_is_found_from_another_directory(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its folder, by `best` and `last`, by a relative path, for every command."""
    workshop.fit("a", *TWO)
    for directory in (tmp_path, workshop.root, workshop.root / "a" / "checkpoints"):
        monkeypatch.chdir(directory)
        folder = os.path.relpath(workshop.root / "a")
        found = workshop.run("validate", "--ckpt_path", folder)
        assert found.status == 0, found.err
        assert run("generate", "--checkpoint", folder, "--max_new_tokens", "2").status == 0
    for wanted in ("best", "last"):
        found = workshop.run("validate", "--name", "a", "--ckpt_path", wanted)
        assert found.status == 0, found.err
    folder = os.path.relpath(workshop.root / "a")
    workshop.fit("a", "--ckpt_path", folder, "--trainer.max_steps", "3")
    assert load(workshop.checkpoint("a"))["global_step"] == 3 and workshop.runs() == ["a"]
