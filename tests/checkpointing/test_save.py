"""When a run is saved and what is kept, also when the disk is full."""

import errno
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from workshop import Workshop, assert_same_weights, load

from lightning_embed.checkpointing.save import Checkpoints

EVERY_3 = ("--checkpoints.every_n_steps", "3")
LAST = ("--ckpt_path", "last")


def steps_kept(shop: Workshop, name: str) -> dict[str, int]:
    folder = shop.root / name / "checkpoints"
    return {path.name: load(path)["global_step"] for path in sorted(folder.iterdir())}


def test_the_last_ones_and_the_best_are_kept(workshop: Workshop) -> None:
    workshop.fit("run", *EVERY_3, "--checkpoints.keep_last", "3", steps=10)
    kept = steps_kept(workshop, "run")
    best = kept.pop("best.ckpt")
    assert kept == {"last.ckpt": 10, "previous.ckpt": 9, "previous-2.ckpt": 6}
    assert 0 < best <= 10


def test_one_may_be_enough(workshop: Workshop) -> None:
    workshop.fit("run", *EVERY_3, "--checkpoints.keep_last", "1", steps=7)
    assert set(steps_kept(workshop, "run")) == {"last.ckpt", "best.ckpt"}


def test_minutes_count_too(workshop: Workshop) -> None:
    settings = ("--checkpoints.every_n_steps", "0", "--checkpoints.every_n_minutes", "1e-9")
    workshop.fit("run", *settings, steps=5)
    assert steps_kept(workshop, "run")["previous.ckpt"] == 4


class FullDisk(L.Callback):
    """From step `step` on, nothing can be written to a disk, as torch and the system say it."""

    def __init__(self, step: int, until: int = 10**9) -> None:
        self.step, self.until = step, until
        self.save = torch.save

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        full = self.step <= trainer.global_step + 1 < self.until

        def fails(state: Any, file: Any) -> None:
            file.write(b"as much as fits")
            raise OSError(errno.ENOSPC, "No space left on device")

        torch.save = fails if full else self.save

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        torch.save = self.save


def full_disk(step: int, until: int) -> tuple[str, ...]:
    name = "--trainer.callbacks"
    return (f"{name}+={__name__}.FullDisk", f"{name}.step={step}", f"{name}.until={until}")


def test_on_a_full_disk_training_goes_on_and_the_checkpoint_before_is_kept(
    workshop: Workshop,
) -> None:
    constant = ("--model.schedule", "constant")
    workshop.fit("whole", *EVERY_3, *constant, steps=10)
    told = workshop.fit("run", *EVERY_3, *constant, *full_disk(5, 10**9), steps=10)
    assert "finished 10 steps" in told.out
    assert "step 6: [Errno 28]" in told.line("warning") and "goes on" in told.line("warning")
    assert steps_kept(workshop, "run") == {"last.ckpt": 3}
    assert not list((workshop.root / "run" / "checkpoints").glob(".*"))
    workshop.fit("run", *EVERY_3, *constant, *LAST, steps=10)
    assert_same_weights(workshop.checkpoint("run"), workshop.checkpoint("whole"))


def test_when_there_is_room_again_saving_goes_on(workshop: Workshop) -> None:
    workshop.fit("run", *EVERY_3, *full_disk(5, 8), steps=10)
    kept = steps_kept(workshop, "run")
    assert (kept["last.ckpt"], kept["previous.ckpt"]) == (10, 9)


def test_rotation_leaves_a_whole_newest_one_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between any two renames leaves the newest content under some name."""
    import os

    keeper = Checkpoints(keep_last=3)
    keeper.folder = tmp_path
    for number in range(6):
        renames = 0
        real = os.replace

        def watched(one: Path, other: Path, number: int = number, real: Any = real) -> None:
            nonlocal renames
            renames += 1
            assert not Path(other).exists()
            real(one, other)
            assert str(number) in [file.read_text() for file in tmp_path.glob("*.ckpt")]

        (tmp_path / "next.ckpt").write_text(str(number))
        monkeypatch.setattr(os, "replace", watched)
        keeper._rotate()
        monkeypatch.undo()
        assert renames == min(number + 1, 3)
    texts = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert texts == {"last.ckpt": "5", "previous.ckpt": "4", "previous-2.ckpt": "3"}


def test_what_a_killed_process_left_is_swept(workshop: Workshop) -> None:
    workshop.fit("run", steps=3)
    folder = workshop.root / "run" / "checkpoints"
    (folder / ".last.ckpt.tmp-123").write_bytes(b"half")
    (folder / ".best.ckpt.tmp-124").mkdir()
    workshop.fit("run", *LAST, steps=5)
    assert not list(folder.glob(".*"))
