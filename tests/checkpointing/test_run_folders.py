"""Which folder a run takes, and which checkpoint is meant."""

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lightning_embed.checkpointing.compatibility import FORMAT, FORMAT_KEY
from lightning_embed.checkpointing.lightning_io import AtomicCheckpointIO
from lightning_embed.checkpointing.run_folders import (
    CLAIM,
    Run,
    choose_run,
    claim,
    find_checkpoint,
    run_name,
    runs_named,
)
from lightning_embed.errors import UserError


def save(path: Path, step: int) -> Path:
    """A checkpoint that the gate lets pass."""
    content = {
        "state_dict": {},
        "hyper_parameters": {"d_model": 8},
        "pytorch-lightning_version": "2.6.6",
        FORMAT_KEY: FORMAT,
        "global_step": step,
    }
    AtomicCheckpointIO().save_checkpoint(content, path)
    return path


def choose(root: Path, name: str = "a", ckpt_path: str | None = None, given: bool = False) -> Run:
    return choose_run(root, name, given=given, ckpt_path=ckpt_path, purpose="train", claims=True)


# Claiming -----------------------------------------------------------------------------------------


def test_a_used_folder_is_never_taken(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert claim(tmp_path, "a").folder == tmp_path / "a"
    assert capsys.readouterr().out == ""
    assert claim(tmp_path, "a").folder == tmp_path / "a-2"
    assert f"this run goes to {tmp_path / 'a-2'}" in capsys.readouterr().out


def test_an_empty_folder_is_free_and_a_gap_is_filled(tmp_path: Path) -> None:
    for _ in range(3):
        claim(tmp_path, "a")
    (tmp_path / "a" / CLAIM).unlink()  # emptied by hand
    assert claim(tmp_path, "a").folder == tmp_path / "a"
    (tmp_path / "a-2" / CLAIM).unlink()
    (tmp_path / "a-2").rmdir()
    assert claim(tmp_path, "a").folder == tmp_path / "a-2"
    assert claim(tmp_path, "a").folder == tmp_path / "a-4"


def test_a_folder_of_another_tool_or_version_is_in_use(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").touch()
    (tmp_path / "a-2").touch()  # a file
    assert claim(tmp_path, "a").folder == tmp_path / "a-3"


@pytest.mark.parametrize("below", ["", "deep/er"])
def test_a_root_that_is_a_file_is_told(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--trainer\.default_root_dir"):
        claim(tmp_path / "file" / below, "a")


def test_runs_that_start_at_once_take_different_folders(tmp_path: Path) -> None:
    """Threads stand for processes: the system makes the file that claims a folder for one alone."""
    barrier = threading.Barrier(6)

    def claim_at_once(_: int) -> str:
        barrier.wait()
        return claim(tmp_path, "a").folder.name

    with ThreadPoolExecutor(6) as threads:
        taken = set(threads.map(claim_at_once, range(6)))
    assert taken == {"a", "a-2", "a-3", "a-4", "a-5", "a-6"}


def test_only_an_untouched_folder_is_given_back(tmp_path: Path) -> None:
    run, used = claim(tmp_path, "a"), claim(tmp_path, "b")
    (used.folder / "config.yaml").touch()
    run.release()
    used.release()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden"])
def test_a_name_is_a_plain_folder_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="--name"):
        choose(tmp_path, name)


# Finding ------------------------------------------------------------------------------------------


def test_the_latest_run_is_the_one_that_was_started_last(tmp_path: Path) -> None:
    first, second = claim(tmp_path, "a"), claim(tmp_path, "a")
    assert next(runs_named(tmp_path, "a")) == second.folder
    first.note_start()
    assert next(runs_named(tmp_path, "a")) == first.folder
    third = first.folder.rename(tmp_path / "moved")
    assert next(runs_named(tmp_path, "a")) == third
    assert list(runs_named(tmp_path, "b")) == []


def test_a_copied_run_goes_by_its_folders_name_too(tmp_path: Path) -> None:
    run = claim(tmp_path, "a")
    shutil.copytree(run.folder, tmp_path / "copy")
    assert next(runs_named(tmp_path, "copy")) == tmp_path / "copy"


def test_last_is_that_of_the_latest_run_though_its_number_is_lower(tmp_path: Path) -> None:
    """`a` was removed and started again; `a-2` is older."""
    old = claim(tmp_path, "a")
    (tmp_path / "a").rename(tmp_path / "a-2")
    save(old.folder.with_name("a-2") / "checkpoints" / "last.ckpt", 9)
    new = claim(tmp_path, "a")
    wanted = save(new.checkpoints / "last.ckpt", 2)
    assert find_checkpoint("last", "train", tmp_path, "a") == wanted


def test_runs_of_a_version_without_claims_are_known_by_their_folders(tmp_path: Path) -> None:
    (tmp_path / "a-b-2").mkdir()
    (tmp_path / "a-b-2" / CLAIM).write_text("[1]", encoding="utf-8")
    assert run_name(tmp_path / "a-b-2") == "a-b"
    assert run_name(tmp_path / "a-b") == "a-b"


def test_a_runs_folder_means_its_newest_to_train_on_and_its_best_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = claim(tmp_path, "a")
    last = save(run.checkpoints / "last.ckpt", 6)
    for form in (str(run.folder), str(run.checkpoints)):
        assert find_checkpoint(form, "train") == last
        assert find_checkpoint(form, "generate") == last
        assert "no validation has chosen" in capsys.readouterr().out
    best = save(run.checkpoints / "best.ckpt", 4)
    assert find_checkpoint(str(run.folder), "train") == last
    assert find_checkpoint(str(run.folder), "evaluate") == best
    assert find_checkpoint("best", "generate", tmp_path) == best


def test_there_must_be_something_to_go_on_from(tmp_path: Path) -> None:
    for wanted in ("last", "best"):
        with pytest.raises(UserError, match="--ckpt_path"):
            choose(tmp_path, ckpt_path=wanted)
    with pytest.raises(UserError, match="no checkpoint at"):
        choose(tmp_path, ckpt_path="missing.ckpt")
    empty = claim(tmp_path, "b").folder
    with pytest.raises(UserError, match="no checkpoint of"):
        choose(tmp_path, ckpt_path=str(empty))
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [("c4", False, "c4"), ("c4", True, "c4"), ("branch", True, "branch")],
)
def test_a_run_of_another_name_goes_on_in_a_folder_of_its_own(
    tmp_path: Path, name: str, given: bool, wanted: str
) -> None:
    run = claim(tmp_path, "c4")
    best = save(run.checkpoints / "best.ckpt", 4)
    found = choose(tmp_path, name, str(best), given)
    assert found == Run(tmp_path / wanted, best)


def test_a_renamed_run_goes_on_where_it_is(tmp_path: Path) -> None:
    moved = claim(tmp_path, "a").folder.rename(tmp_path / "moved")
    last = save(moved / "checkpoints" / "last.ckpt", 4)
    for name in ("a", "moved"):
        assert choose(tmp_path, name, str(moved), given=True) == Run(moved, last)


def test_a_checkpoint_outside_of_a_run_goes_on_in_a_new_one(tmp_path: Path) -> None:
    stray = save(tmp_path / "stray.ckpt", 4)
    claim(tmp_path, "a")
    assert choose(tmp_path, "a", str(stray)) == Run(tmp_path / "a-2", stray)
    evaluated = choose_run(
        tmp_path, "a", given=False, ckpt_path=str(stray), purpose="evaluate", claims=True
    )
    assert evaluated == Run(tmp_path, stray)


def test_other_processes_claim_nothing(tmp_path: Path) -> None:
    found = choose_run(tmp_path, "a", given=True, ckpt_path=None, purpose="train", claims=False)
    assert found == Run(tmp_path / "a") and not list(tmp_path.iterdir())


def test_a_claim_says_whose_run_it_is(tmp_path: Path) -> None:
    run = claim(tmp_path, "a")
    run.note_start()
    about = json.loads((run.folder / CLAIM).read_text(encoding="utf-8"))
    assert about["name"] == "a" and len(about["starts"]) == 2


@pytest.mark.parametrize("wrong", [{"global_step": "six"}, {"hyper_parameters": "none"}, {}])
def test_a_newest_checkpoint_that_says_nonsense_is_named_and_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: dict[str, object]
) -> None:
    folder = tmp_path / "run" / "checkpoints"
    good = {
        "state_dict": {},
        "hyper_parameters": {"d_model": 8},
        "pytorch-lightning_version": "2.6.6",
        FORMAT_KEY: FORMAT,
        "global_step": 4,
    }
    AtomicCheckpointIO().save_checkpoint(good, folder / "previous.ckpt")
    AtomicCheckpointIO().save_checkpoint(good | wrong if wrong else {}, folder / "last.ckpt")
    assert find_checkpoint("last", "train", tmp_path, "run") == folder / "previous.ckpt"
    assert str(folder / "last.ckpt") in capsys.readouterr().out
