"""A disk that is full when a checkpoint is written: training goes on, the one before resumes.

Runs write to a small file system in memory (tmpfs, which only root can mount: elsewhere these tests
are skipped, and `tests/checkpointing/test_save.py` stands alone). Each is resumed with room enough,
and ends with the weights and moments, bit by bit, of a run on a large disk.
"""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from soak.small_runs import SmallRuns, differences
from workshop import Outcome, load

from lightning_embed.checkpointing.files import is_whole

pytestmark = pytest.mark.slow

STEPS = ("--trainer.max_steps", "18")
OPTIONS = (*STEPS, "--checkpoints.every_n_steps", "3", "--trainer.log_every_n_steps", "1")
COMPARED = ("state_dict", "optimizer_states", "lr_schedulers", "global_step")
LARGE = 64 * 2**20
FILL = ("--trainer.callbacks+=soak.observers.Filler", "--trainer.callbacks.first=8")
STOP = ("--trainer.callbacks+=workshop.SignalAt", "--trainer.callbacks.step=12")


class Case(NamedTuple):
    """A way to be full.

    Args:
        room: size of the disk, in checkpoints; None, it is large.
        fills: whether something else takes it to its last byte from step 8 on.
        until: the step before which that goes again; 0, it stays.
        stopped: whether SIGTERM comes at step 12.
    """

    name: str
    room: float | None = None
    fills: bool = False
    until: int = 0
    stopped: bool = False


CASES = (
    Case("room for one checkpoint, not for two", room=1.6),
    Case("filled from step 8 to 13", fills=True, until=14),
    Case("filled from step 8, SIGTERM at 12", fills=True, stopped=True),
)


def mount(folder: Path, size: int, again: bool = False) -> None:
    options = f"{'remount,' if again else ''}size={size}"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise PermissionError(done.stderr.strip())


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallRuns]:
    """Its runs go to a disk whose size can be changed."""
    folder = tmp_path_factory.mktemp("full")
    disk = folder / "disk"
    disk.mkdir()
    try:
        mount(disk, LARGE)
    except (FileNotFoundError, PermissionError) as error:
        pytest.skip(f"no small file system can be mounted here ({error})")
    try:
        yield SmallRuns(folder, options=OPTIONS, root=disk)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=False)


@pytest.fixture(scope="module")
def whole(shop: SmallRuns, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of a run that had room enough."""
    shop.must_succeed("fit", "--name", "whole")
    kept = tmp_path_factory.mktemp("whole") / "last.ckpt"
    shutil.move(shop.checkpoint("whole"), kept)
    return kept


def warnings(told: Outcome) -> list[str]:
    lines = [line for line in told.out.splitlines() if line.startswith("warning")]
    return [line for line in lines if "full" in line or "No space" in line]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_full_disk_costs_no_checkpoint_that_was_there(
    shop: SmallRuns, whole: Path, case: Case
) -> None:
    for left in shop.root.iterdir():
        shutil.rmtree(left)
    filler = shop.root / "filler"
    options: list[str] = []
    if case.fills:
        options += [*FILL, f"--trainer.callbacks.file={filler}"]
        options += [f"--trainer.callbacks.last={case.until}"]
    if case.stopped:
        options += STOP
    room = LARGE if case.room is None else round(case.room * whole.stat().st_size)
    mount(shop.root, room, again=True)
    told = shop.start("fit", "--name", "run", *options).outcome()
    last = shop.checkpoint("run")
    assert told.status == (143 if case.stopped else 0), told.err
    assert "Traceback" not in told.out + told.err
    assert warnings(told)
    assert last.exists()
    assert not [path.name for path in last.parent.glob("*.ckpt") if not is_whole(path)]
    assert not [path.name for path in last.parent.glob(".*")]  # nothing half written is left

    mount(shop.root, LARGE, again=True)
    filler.unlink(missing_ok=True)
    shop.must_succeed("fit", "--name", "run", "--ckpt_path", "last")
    ours, theirs = load(last), load(whole)
    assert not [d for key in COMPARED for d in differences(ours[key], theirs[key], key)]
