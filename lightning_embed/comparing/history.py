"""A run's figures over its steps, out of TensorBoard's event files.

A run that was stopped and resumed has several files, and steps that were done twice. As in the
trained weights, what the later process did counts: where it begins, the earlier one's figures end,
and so does its share of the run's time.
"""

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.util.tensor_util import make_ndarray

from lightning_embed import figures

EVENT_FILES = "events.out.tfevents.*"
TAGS = {
    figures.TRAIN_LOSS: "train",
    figures.VALIDATION_LOSS: "validation",
    figures.BITS_PER_BYTE: "bits_per_byte",
    figures.HELD_OUT_LOSS: "held_out_loss",
    figures.HELD_OUT_BITS_PER_BYTE: "held_out_bits_per_byte",
    figures.TOKENS_PER_SECOND: "tokens_per_second",
    figures.TOKENS: "tokens",
    # of 0.2 and earlier
    "train/loss": "train",
    "val/loss": "validation",
    "val/bits_per_byte": "bits_per_byte",
    "held_out/loss": "held_out_loss",
    "held_out/bits_per_byte": "held_out_bits_per_byte",
    "throughput/real_tokens_per_s": "tokens_per_second",
}
HEADER = struct.Struct("<QI")  # of a record: length of its data, checksum of the length
AROUND = HEADER.size + 4  # bytes of a record beside its data


class Point(NamedTuple):
    """A figure after so many steps and so many seconds of training, those done twice once."""

    step: int
    seconds: float
    value: float


@dataclass
class History:
    """Figures by their names in `TAGS`, each in the order of its steps.

    Attributes:
        damaged: the file with a record whose checksum is wrong, after which nothing can be read.
    """

    series: dict[str, list[Point]] = field(default_factory=dict)
    damaged: str | None = None

    @property
    def last(self) -> Point | None:
        """The latest entry of any series."""
        return max((points[-1] for points in self.series.values()), default=None)

    def value(self, name: str) -> float | None:
        """The last value of a series."""
        return self.series[name][-1].value if name in self.series else None

    def tokens_at(self, step: int) -> float | None:
        """Real tokens seen after a step, between two entries in proportion to the steps."""
        seen = [(0, 0.0), *((point.step, point.value) for point in self.series.get("tokens", []))]
        place = bisect_right(seen, (step, float("inf")))
        if place == len(seen):  # the last entry, or past it
            return seen[-1][1] if seen[-1][0] == step and len(seen) > 1 else None
        (before, low), (after, high) = seen[place - 1], seen[place]
        return low + (high - low) * (step - before) / (after - before)

    def tokens_per_second(self) -> float | None:
        """Of the whole run: steps have about as many tokens each, so their times are added up."""
        steps = seconds = before = 0.0
        for point in self.series.get("tokens_per_second", []):
            if point.value > 0:
                steps += point.step - before
                seconds += (point.step - before) / point.value
            before = point.step
        return steps / seconds if seconds else None


@dataclass
class _File:
    process: tuple[int, str]  # which start of the run, and the process by its name
    opened: float
    first_step: int | None = None  # entries of earlier files from here on are taken back
    points: list[tuple[str, Point]] = field(default_factory=list)  # seconds since 1970


def read_history(folder: Path, starts: list[float]) -> History:
    """The figures of the run in `folder`.

    Args:
        folder: what is called `EVENT_FILES` in it is read.
        starts: when the run was started, and then resumed, in seconds since 1970.
    """
    history = History()
    files = []
    for path in sorted(folder.glob(EVENT_FILES)):
        events = list(_events(path, history))
        if events:
            files.append(_file(path, events, starts))
    kept: dict[str, dict[int, Point]] = {}
    began = before = 0.0
    process = None
    for file in sorted(files, key=lambda file: file.opened):
        if file.process != process:
            steps = [point.step for _, point in file.points]
            first = min(steps, default=None) if file.first_step is None else file.first_step
            if process is not None and first is not None:
                _take_back(kept, first)
            last = [point.seconds for points in kept.values() for point in points.values()]
            process, began, before = file.process, file.opened, max(last, default=0.0)
        elif file.first_step is not None:
            _take_back(kept, file.first_step)
        for name, point in file.points:
            seconds = before + max(0.0, point.seconds - began)
            kept.setdefault(name, {})[point.step] = point._replace(seconds=seconds)
    history.series = {name: sorted(points.values()) for name, points in kept.items() if points}
    return history


def _take_back(kept: dict[str, dict[int, Point]], first_step: int) -> None:
    for name, points in kept.items():
        kept[name] = {step: point for step, point in points.items() if step < first_step}


def _file(path: Path, events: Iterable[Event], starts: list[float]) -> _File:
    found = None
    for event in events:
        if found is None:
            name = path.name.removeprefix(EVENT_FILES.rstrip("*")).partition(".")[2]  # no time
            process = bisect_right(starts, event.wall_time), name.rpartition(".")[0]
            found = _File(process, event.wall_time)
        if event.session_log.status == SessionLog.START:
            found.first_step = event.step
        for value in event.summary.value:
            number = _number(value) if value.tag in TAGS else None
            if number is not None:
                point = Point(event.step, event.wall_time, number)
                found.points.append((TAGS[value.tag], point))
    assert found is not None, path
    return found


def _number(value: Any) -> float | None:
    """A scalar, as torch's writer or TensorBoard's own writes it."""
    if value.HasField("simple_value"):
        return float(value.simple_value)
    if value.HasField("tensor"):
        array = make_ndarray(value.tensor)
        return float(array.item()) if array.size == 1 else None
    return None


def _events(path: Path, history: History) -> Iterator[Event]:
    """All events up to the file's end, a record half written, or a damaged one."""
    read = 0
    for record in RawEventFileLoader(str(path)).Load():
        read += len(record) + AROUND
        yield Event.FromString(record)
    if not _ends_at(path, read):
        history.damaged = path.name


def _ends_at(path: Path, place: int) -> bool:
    """Whether nothing whole follows: the end, or a record that a process died at or is writing."""
    with open(path, "rb") as file:
        file.seek(place)
        header = file.read(HEADER.size)
        size = path.stat().st_size
    if len(header) < HEADER.size:
        return True
    length, checksum = HEADER.unpack(header)
    return checksum == masked_crc32c(header[:8]) and place + AROUND + length > size
