"""A disk that is full when a checkpoint is written: training goes on, the one before resumes.

    python benchmarks/full_disk.py

Runs of 18 steps that save every 3 write to a small file system in memory (tmpfs, which only root
can mount; elsewhere this says so and ends). Three ways to be full: there is room for one checkpoint
and not for two; something else fills the disk to its last byte from step 8 to 13; the same, and
SIGTERM at step 12. Each is then resumed with room enough, and its weights and moments compared bit
by bit with those of a run on a large disk. Leaves with status 1 if anything is wrong.
"""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from small_runs import Outcome, SmallRuns, differences, load

from lightning_embed.checkpointing.files import is_whole

STEPS = 18
OPTIONS = ("--checkpoints.every_n_steps", "3", "--trainer.log_every_n_steps", "1")
COMPARED = ("state_dict", "optimizer_states", "lr_schedulers", "global_step")
LARGE = 64 * 2**20
FILL = "--trainer.callbacks+=observers.Filler"
STOP = "--trainer.callbacks+=workshop.SignalAt"


class Case(NamedTuple):
    """A way to be full: room in checkpoints, what fills the rest, how the run then ends."""

    name: str
    room: float | None
    options: tuple[str, ...]
    status: int


def cases(disk: Path) -> list[Case]:
    fill = (FILL, f"--trainer.callbacks.file={disk / 'filler'}", "--trainer.callbacks.first=8")
    stop = (STOP, "--trainer.callbacks.step=12")
    return [
        Case("room for one checkpoint, not for two", 1.6, (), 0),
        Case("filled up from step 8 to 13", None, (*fill, "--trainer.callbacks.last=14"), 0),
        Case("filled up from step 8, SIGTERM at 12", None, (*fill, *stop), 143),
    ]


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A tmpfs on `folder`.

    Raises:
        PermissionError: this user, or this system, cannot mount one.
    """
    folder.mkdir()
    mount(folder, LARGE)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def mount(folder: Path, size: int, again: bool = False) -> None:
    options = f"{'remount,' if again else ''}size={size}"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise PermissionError("this system has no mount") from None
    if done.returncode:
        raise PermissionError(done.stderr.strip())


def problems(told: Outcome, case: Case, checkpoints: Path) -> list[str]:
    """What is wrong after the disk was full."""
    found = []
    if told.status != case.status:
        said = (told.err.strip().splitlines() or ["nothing"])[-1]
        found.append(f"ended with {told.status}, not {case.status}, and said {said}")
    if "Traceback" in told.out + told.err:
        found.append("a traceback")
    if not warnings(told):
        found.append("no warning")
    if not (checkpoints / "last.ckpt").exists():
        found.append("no last.ckpt is left")
    found += [f"{p.name} is damaged" for p in checkpoints.glob("*.ckpt") if not is_whole(p)]
    found += [f"{p.name} is left over" for p in checkpoints.glob(".*")]
    return found


def warnings(told: Outcome) -> list[str]:
    lines = [line for line in told.out.splitlines() if line.startswith("warning")]
    return [line for line in lines if "full" in line or "No space" in line]


def attempt(shop: SmallRuns, case: Case, number: int, whole: Path, size: int) -> str:
    """A line of the table."""
    disk, name = shop.root, f"run{number}"
    mount(disk, LARGE if case.room is None else round(case.room * size), again=True)
    limit = ("--trainer.max_steps", str(STEPS))
    told = shop.start("fit", "--name", name, *limit, *case.options).outcome()
    checkpoints = disk / name / "checkpoints"
    wrong, kept = problems(told, case, checkpoints), ""
    if (checkpoints / "last.ckpt").exists():
        kept = f"step {load(checkpoints / 'last.ckpt')['global_step']}"
        mount(disk, LARGE, again=True)
        (disk / "filler").unlink(missing_ok=True)
        again = shop.start("fit", "--name", name, *limit, "--ckpt_path", "last").outcome()
        if again.status:
            wrong.append(f"does not resume: {again.err.strip().splitlines()[-1:]}")
        else:
            saved = load(checkpoints / "last.ckpt")
            expected = load(whole)
            wrong += [d for key in COMPARED for d in differences(saved[key], expected[key], key)]
    return (
        f"| {case.name} | {told.status} | {len(warnings(told))} | {kept}"
        f" | {'; '.join(wrong[:3]) or 'bitwise equal'} |"
    )


def main() -> None:
    from results import record

    table = [
        "| the disk | exit status | warnings | kept as last.ckpt | after the resume |",
        "| --- | --- | --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory() as folder:
        disk = Path(folder) / "disk"
        try:
            with small_disk(disk):
                shop = SmallRuns(Path(folder), options=OPTIONS, root=disk)
                shop.must_succeed("fit", "--name", "whole", "--trainer.max_steps", str(STEPS))
                whole = Path(folder) / "whole.ckpt"
                shutil.move(disk / "whole" / "checkpoints" / "last.ckpt", whole)
                for number, case in enumerate(cases(disk)):
                    for left in disk.iterdir():
                        shutil.rmtree(left)
                    table.append(attempt(shop, case, number, whole, whole.stat().st_size))
                    print(table[-1], flush=True)
        except PermissionError as error:
            print(f"skipped: no small file system can be mounted here ({error})")
            return
    text = f"{STEPS} steps, a checkpoint every 3.\n\n" + "\n".join(table).replace(folder, ".")
    record("A full disk", text)
    raise SystemExit(0 if text.count("bitwise equal") == len(table) - 2 else 1)


if __name__ == "__main__":
    main()
