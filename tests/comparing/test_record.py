"""What a run's folder says: its figures, its state, and which folders are no runs."""

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import pytest
from made_runs import NOW, age, make_run, write_events

from lightning_embed.atomic import owner
from lightning_embed.comparing.record import Record, read_runs


def only(folder: Path) -> Record:
    (run,), skipped = read_runs([folder])
    assert skipped == []
    return run


def why_skipped(folder: Path) -> str:
    runs, ((skipped, why),) = read_runs([folder])
    assert runs == [] and skipped == folder
    return why


def test_figures_of_a_finished_run(tmp_path: Path) -> None:
    run = only(make_run(tmp_path / "a", loss=3.0, steps=20))
    assert (run.label, run.state, run.problem) == ("a", "finished", None)
    assert (run.began, run.steps, run.parameters) == (NOW, 20, 12_345)
    assert (run.loss, run.bits_per_byte, run.tokens_per_second) == (3.0, 1.5, 1000.0)
    assert run.minutes == pytest.approx(20 / 60)


def test_loss_is_of_the_latest_validation_where_a_run_has_gone_on(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", loss=3.0, steps=20)
    write_events(folder, {"loss/validation": {25: 2.5}}, NOW + 60, "host.2", 0, first_step=21)
    run = only(folder)
    assert (run.loss, run.bits_per_byte, run.steps) == (2.5, pytest.approx(1.675), 25)


def test_a_loss_that_is_not_finite_is_shown(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", ended=False)
    write_events(folder, {"loss/validation": {20: math.nan}}, NOW + 60, number=1)
    loss = only(folder).loss
    assert loss is not None and math.isnan(loss)


# State ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("about", "seconds", "state"),
    [
        ({"process": owner()}, 10_000, "running"),  # a long validation
        ({"process": owner().rpartition("-")[0] + "-1"}, 0, "stopped"),  # killed just now
        ({}, 0, "running"),  # on another host
        ({}, 10_000, "stopped"),
        ({"process": None}, 0, "running"),  # of a version that does not write it
        ({"process": None}, 10_000, "stopped"),
        ({"finished": NOW}, 0, "finished"),
    ],
)
def test_state_follows_from_the_process_or_else_from_the_age_of_the_files(
    tmp_path: Path, about: dict[str, Any], seconds: float, state: str
) -> None:
    folder = make_run(tmp_path / "a", ended=False, about=about)
    age(folder, seconds)
    assert only(folder).state == state


def test_a_run_of_a_version_that_notes_no_end_is_finished_with_its_last_evaluation(
    tmp_path: Path,
) -> None:
    folder = make_run(tmp_path / "a")
    (folder / "run.json").write_text(json.dumps({"name": "a", "starts": [NOW]}), encoding="utf-8")
    age(folder, 10_000)
    assert only(folder).state == "finished"
    write_events(folder, {"train/loss": {25: 2.5}}, NOW + 60, "host.2", 0, first_step=21)
    age(folder, 10_000)
    assert only(folder).state == "stopped"


def test_a_run_that_prepares_its_text_has_no_figures_yet(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    said = {"name": "a", "starts": [time.time()], "process": owner()}
    (tmp_path / "a" / "run.json").write_text(json.dumps(said), encoding="utf-8")
    run = only(tmp_path / "a")
    assert (run.state, run.steps, run.loss, run.minutes) == ("running", None, None, None)


def test_a_run_of_a_version_without_run_json(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a")
    (folder / "run.json").unlink()
    age(folder, 10_000)
    run = only(folder)
    assert run.state == "finished" and run.began == pytest.approx(time.time() - 10_000, abs=60)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("run.json", b'{"name": "a", "sta', "run.json cannot be read"),
        ("run.json", b"", "run.json cannot be read"),
        ("config.yaml", b"model: {d_mo", "config.yaml does not parse"),
        ("config.yaml", b"model:\n  d_model: 64\nda", "config.yaml does not parse"),
        ("checkpoints/last.ckpt", b"PK\3\4half", "last.ckpt is damaged"),
        ("events.out.tfevents.1.host.1.0", b"x" * 99, "events.out.tfevents.1.host.1.0 is damaged"),
    ],
)
def test_what_is_damaged_is_named(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    folder = make_run(tmp_path / "a")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    run = only(folder)
    assert (run.state, run.problem) == ("damaged", problem)
    assert run.loss == 3.0  # what can be read is shown


# Which folders ----------------------------------------------------------------------------------


def test_runs_in_a_folder_and_runs_themselves_each_once(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "runs" / "a"), make_run(tmp_path / "runs" / "b")
    (tmp_path / "runs" / ".hidden").mkdir()
    (tmp_path / "runs" / "notes.txt").touch()
    runs, skipped = read_runs([b, tmp_path / "runs", a])
    assert [run.folder for run in runs] == [b, a] and skipped == []


def test_folders_that_are_no_runs_are_named(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "x.txt").touch()
    write_events(tmp_path / "other", {"loss/train": {1: 1.0}})
    (tmp_path / "third").mkdir()
    (tmp_path / "third" / "run.json").write_text('{"id": 7}', encoding="utf-8")
    (tmp_path / "fourth").mkdir()
    (tmp_path / "fourth" / "config.yaml").write_text("lr: 1", encoding="utf-8")
    runs, skipped = read_runs([tmp_path])
    assert [run.label for run in runs] == ["a"]
    no_run = "it is no run of lightning_embed"
    assert {folder.name: why for folder, why in skipped} == {
        "empty": "it is empty",
        **dict.fromkeys(["notes", "other", "third", "fourth"], no_run),
    }


def test_a_folder_that_is_not_there_or_a_file_or_empty(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    assert why_skipped(tmp_path / "no") == "no such file or directory"
    assert why_skipped(tmp_path / "file") == "not a directory"
    assert why_skipped(tmp_path / "empty") == "no run is in it"


def test_a_folder_that_this_user_may_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions do not bind the superuser, under whom tests may run."""
    make_run(tmp_path / "runs" / "a")
    locked = make_run(tmp_path / "runs" / "b")
    read = Path.iterdir

    def iterdir(folder: Path) -> Any:
        if folder == locked:
            raise PermissionError(13, "Permission denied", str(folder))
        return read(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    runs, ((folder, why),) = read_runs([tmp_path / "runs"])
    assert [run.label for run in runs] == ["a"]
    assert (folder, why) == (locked, "this user may not read it")
    assert why_skipped(locked) == why


def test_names_are_told_apart_by_the_folders_before_them(tmp_path: Path) -> None:
    make_run(tmp_path / "x" / "runs" / "a")
    make_run(tmp_path / "y" / "runs" / "a")
    runs, _ = read_runs([tmp_path / "x" / "runs", tmp_path / "y" / "runs"])
    assert [run.label for run in runs] == ["x/runs/a", "y/runs/a"]


@pytest.mark.skipif(os.name == "nt", reason="such names are impossible")
def test_names_with_spaces_letters_of_all_kinds_and_control_characters(tmp_path: Path) -> None:
    latin = os.fsdecode(b"latin\xe9")
    for name in ("größe 2", "試験", "tab\there\x1b[31m", latin):
        make_run(tmp_path / name)
    runs, skipped = read_runs([tmp_path])
    assert skipped == [(tmp_path / latin, "its name is not UTF-8")]
    assert {run.label for run in runs} == {"größe 2", "試験", "tab    here\\x1b[31m"}
