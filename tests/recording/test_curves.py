"""Curves outlive a full disk; steps that are done once more are not there twice."""

import errno
import itertools
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer
from torch.utils.tensorboard import SummaryWriter

from lightning_embed.recording.curves import Curves, quiet_writer


def curve(folder: Path) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("loss")]


def test_a_resumed_run_takes_back_what_it_does_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, (first, steps) in enumerate(((None, range(1, 8)), (5, range(5, 9)))):
        # Files are read in the order of the second they were begun in, which is in their names.
        clock = SimpleNamespace(time=lambda second=number: float(second))
        monkeypatch.setattr(event_file_writer, "time", clock)
        curves = Curves(str(tmp_path), "run", first)
        for step in steps:
            curves.log_metrics({"loss": float(10 * (first or 0) + step)}, step)
        curves.save()
    assert [step for step, _ in curve(tmp_path / "run")] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert curve(tmp_path / "run")[4] == (5, 55.0)


def test_a_run_resumed_within_a_second_has_its_entries_in_order(tmp_path: Path) -> None:
    """The first process has the higher number, which decides among files of one second."""
    for first, process in ((None, 9_000_000), (5, 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("os.getpid", lambda number=process: number)
            curves = Curves(str(tmp_path), "run", first)
            for step in range(first or 1, 8):
                curves.log_metrics({"loss": 1.0}, step)
            curves.save()
    assert [step for step, _ in curve(tmp_path / "run")] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(("ahead", "said"), [(0, 0), (90, 1)])
def test_a_clock_that_is_behind_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ahead: int, said: int
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / f"events.out.tfevents.{int(time.time()) + ahead}.here.1.0").touch()
    Curves(str(tmp_path), "run")
    assert capsys.readouterr().out.count("clock") == said


def test_a_full_disk_is_said_once_and_curves_go_on_after_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    # Every file of a second of its own: within one, the tenth would be read before the ninth.
    clock = SimpleNamespace(time=itertools.count(1.0).__next__)
    monkeypatch.setattr(event_file_writer, "time", clock)
    curves = Curves(str(tmp_path), "run")
    for step in range(3, 12):
        with monkeypatch.context() as patch:
            if step in (6, 7, 8):
                patch.setattr(SummaryWriter, "add_scalar", full)
                patch.setattr(SummaryWriter, "flush", full)
            curves.log_metrics({"loss": float(step)}, step)
            curves.save()
    curves.finalize("success")
    assert [step for step, _ in curve(tmp_path / "run")] == [3, 4, 5, 9, 10, 11]
    assert capsys.readouterr().out.count("No space left") == 1


def test_other_mistakes_are_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="you tried to log"):
        Curves(str(tmp_path), "run").log_metrics({"loss": object()}, 1)


@pytest.mark.parametrize(
    ("module", "error", "told"),
    [
        ("tensorboard.summary", OSError(errno.ENOSPC, "full"), False),
        ("tensorboard.summary", KeyError("x"), True),
        ("elsewhere", OSError(errno.ENOSPC, "full"), True),
    ],
)
def test_only_tensorboards_thread_ends_quietly(
    monkeypatch: pytest.MonkeyPatch, module: str, error: Exception, told: bool
) -> None:
    heard: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", heard.append)
    quiet_writer()
    kind = type("Writer", (threading.Thread,), {"__module__": module})

    def fail() -> None:
        raise error

    thread = kind(target=fail)
    thread.start()
    thread.join()
    assert bool(heard) == told
