"""Which folder, which checkpoint, and the command line that goes on."""

import shlex
from pathlib import Path

import pytest

from lightning_embed.checkpointing.compatibility import FORMAT, FORMAT_KEY, Candidate, check
from lightning_embed.checkpointing.files import AtomicCheckpointIO
from lightning_embed.checkpointing.run_folders import (
    choose_run,
    newest_checkpoint,
    next_folder,
    resume_command,
    runs_named,
)
from lightning_embed.errors import UserError

SAVED = Path("runs/x/config.yaml")


@pytest.mark.parametrize(
    ("args", "name", "root", "wanted"),
    [
        (["--config", "configs/a.yaml"], "a", "runs", "--config configs/a.yaml"),
        (["--config", "a.yaml", "--name", "b"], "b", "runs", "--config a.yaml --name b"),
        (
            ["--config", "a.yaml", "--trainer.default_root_dir", "here"],
            "a",
            "here",
            "--config a.yaml --trainer.default_root_dir here",
        ),
        (["--config", "a.yaml", "--model.lr=1"], "a", "runs", f"--config {SAVED} --name a"),
        (["--config", "a.yaml", "--config", "b.yaml"], "a", "runs", f"--config {SAVED} --name a"),
        ([], "run", "runs", f"--config {SAVED} --name run"),
    ],
)
def test_the_command_says_as_much_as_it_must(
    args: list[str], name: str, root: str, wanted: str
) -> None:
    command = resume_command(args, SAVED, name, Path(root))
    assert shlex.split(command) == shlex.split(f"python train.py fit {wanted} --ckpt_path last")


def test_a_used_folder_is_never_taken(tmp_path: Path) -> None:
    assert next_folder(tmp_path, "a") == tmp_path / "a"
    (tmp_path / "a").mkdir()
    assert next_folder(tmp_path, "a") == tmp_path / "a"  # nothing is in it yet
    (tmp_path / "a" / "file").touch()
    assert next_folder(tmp_path, "a") == tmp_path / "a-2"
    (tmp_path / "a-2").mkdir()
    assert list(runs_named(tmp_path, "a")) == [tmp_path / "a", tmp_path / "a-2"]


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden"])
def test_a_name_is_a_plain_folder_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="--name"):
        choose_run(tmp_path, name, ckpt_path=None, fresh=True)


def test_there_must_be_something_to_go_on_from(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--ckpt_path"):
        choose_run(tmp_path, "a", ckpt_path="last", fresh=True)
    for wanted in ("best", "missing.ckpt"):  # a path, which the gate looks at
        run = choose_run(tmp_path, "a", ckpt_path=wanted, fresh=True)
        assert run.checkpoint is not None
        with pytest.raises(UserError, match="no checkpoint at"):
            check(Candidate(run.checkpoint, "train"), "file")


@pytest.mark.parametrize("wrong", [{"global_step": "six"}, {"hyper_parameters": "none"}, {}])
def test_a_newest_checkpoint_that_says_nonsense_is_named_and_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: dict[str, object]
) -> None:
    folder = tmp_path / "run" / "checkpoints"
    good = {
        "state_dict": {},
        "hyper_parameters": {},
        "pytorch-lightning_version": "2.6.6",
        FORMAT_KEY: FORMAT,
        "global_step": 4,
    }
    AtomicCheckpointIO().save_checkpoint(good, folder / "previous.ckpt")
    AtomicCheckpointIO().save_checkpoint(good | wrong if wrong else {}, folder / "last.ckpt")
    assert newest_checkpoint(tmp_path, "run") == folder / "previous.ckpt"
    assert str(folder / "last.ckpt") in capsys.readouterr().out
