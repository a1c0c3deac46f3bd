"""Folders of runs, made up without training: `run.json`, `config.yaml` and event files."""

import json
import time
from pathlib import Path
from typing import Any

import yaml
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

NOW = 1_800_000_000.0
DEAD = "no-such-host-4026531836-1-1"  # the process of a run that is told of by its files' age


def write_events(
    folder: Path,
    points: dict[str, dict[int, float]],
    began: float = NOW,
    process: str = "host.1",
    number: int = 0,
    first_step: int | None = None,
) -> Path:
    """An event file of a process that took a second for each step from `first_step` on.

    Args:
        points: values by step, by tag.
        first_step: what earlier files have from here on is taken back, which is written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"events.out.tfevents.{int(began)}.{process}.{number}"
    with open(path, "wb") as file:
        records = RecordWriter(file)
        records.write(Event(wall_time=began, file_version="brain.Event:2").SerializeToString())
        if first_step is not None:
            start = SessionLog(status=SessionLog.START)
            event = Event(wall_time=began, step=first_step, session_log=start)
            records.write(event.SerializeToString())
        every = sorted({step for values in points.values() for step in values})
        for step in every:
            values = [
                Summary.Value(tag=tag, simple_value=values[step])
                for tag, values in points.items()
                if step in values
            ]
            at = began + step - max(0, (first_step or 1) - 1)
            event = Event(wall_time=at, step=step, summary=Summary(value=values))
            records.write(event.SerializeToString())
    return path


def settings(**changes: Any) -> dict[str, Any]:
    """A small `config.yaml`; `model__lr=1` sets `model.lr`."""
    found: dict[str, Any] = {
        "seed_everything": 42,
        "trainer": {"max_steps": 20, "default_root_dir": "runs", "callbacks": None},
        "model": {"d_model": 64, "lr": 0.003, "betas": [0.9, 0.95]},
        "data": {"max_length": 256, "files": None, "source": None},
        "name": "made",
    }
    for name, value in changes.items():
        section, _, key = name.partition("__")
        found[section][key] = value
    return found


def make_run(
    folder: Path,
    loss: float = 3.0,
    steps: int = 20,
    began: float = NOW,
    ended: bool = True,
    about: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """A run with the tags that are logged since 0.3, whose loss falls to `loss`."""
    folder.mkdir(parents=True)
    told = {"name": folder.name, "starts": [began], "process": DEAD, "parameters": 12_345}
    if ended:
        told["finished"] = began + steps
    (folder / "run.json").write_text(json.dumps(told | (about or {})), encoding="utf-8")
    config = yaml.safe_dump(settings(**changes), allow_unicode=True)
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    train = {step: loss + 5 / step for step in range(1, steps + 1)}
    validated = {step: value + 0.1 for step, value in train.items() if step % 5 == 0}
    points = {
        "loss/train": train,
        "loss/validation": validated,
        "quality/bits_per_byte": {step: value / 2 for step, value in validated.items()},
        "speed/tokens_per_second": {step: 1000.0 for step in validated},
        "progress/tokens": {step: 1000.0 * step for step in validated},
    }
    if ended:
        points |= {
            "quality/held_out_loss": {steps: loss},
            "quality/held_out_bits_per_byte": {steps: loss / 2},
        }
    write_events(folder, points, began)
    return folder


def age(folder: Path, seconds: float) -> None:
    """Make all files in it look as if they had been written so long ago."""
    import os

    then = time.time() - seconds
    for path in folder.iterdir():
        os.utime(path, (then, then))
