"""A run's figures out of event files: both spellings, stopped and resumed, damaged."""

from pathlib import Path

import numpy as np
import pytest
from made_runs import NOW, write_events
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from lightning_embed.comparing.history import TAGS, History, Point, read_history


def steps(history: History, name: str = "train") -> list[int]:
    return [point.step for point in history.series[name]]


def numbered(steps: range, add: float = 0.0) -> dict[str, dict[int, float]]:
    return {"train/loss": {step: step + add for step in steps}}


@pytest.mark.parametrize("tag", TAGS)
def test_every_spelling_is_read_and_other_tags_left(tmp_path: Path, tag: str) -> None:
    write_events(tmp_path, {tag: {1: 4.0, 2: 3.5}, "train/lr": {1: 0.1}})
    history = read_history(tmp_path, [NOW])
    assert history.series == {TAGS[tag]: [Point(1, 1.0, 4.0), Point(2, 2.0, 3.5)]}
    assert history.damaged is None


def test_values_are_those_that_tensorboard_shows(tmp_path: Path) -> None:
    """Of a file by torch's writer, with scalars in either form."""
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(1, 30):
            writer.add_scalar("train/loss", 10 / step, step)
            writer.add_scalar("val/loss", 20 / step, step, new_style=True)
        writer.add_text("samples/0", "text", 3)
        writer.add_histogram("weights", np.arange(9.0), 3)
    shown = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0})
    shown.Reload()
    read = {
        name: [(step, value) for step, _, value in points]
        for name, points in read_history(tmp_path, []).series.items()
    }
    tensors = shown.Tensors("val/loss")
    assert read == {
        "train": [(event.step, event.value) for event in shown.Scalars("train/loss")],
        "validation": [(event.step, event.tensor_proto.float_val[0]) for event in tensors],
    }
    assert len(read["train"]) == 29


@pytest.mark.parametrize("told", [True, False], ids=["noted", "not noted"])
def test_steps_done_twice_are_there_once_as_the_later_process_did_them(
    tmp_path: Path, told: bool
) -> None:
    write_events(tmp_path, numbered(range(1, 11)), NOW)
    first = 7 if told else None  # a file without the note takes back from its first entry on
    write_events(tmp_path, numbered(range(7, 13), 0.5), NOW + 100, "host.2", 0, first)
    history = read_history(tmp_path, [NOW, NOW + 100])
    assert steps(history) == list(range(1, 13))
    assert [point.value for point in history.series["train"]][4:8] == [5.0, 6.0, 7.5, 8.5]


def test_time_between_two_processes_and_of_steps_done_twice_counts_for_nothing(
    tmp_path: Path,
) -> None:
    write_events(tmp_path, numbered(range(1, 11)), NOW)
    write_events(tmp_path, numbered(range(7, 13)), NOW + 5000, "host.1", 0, first_step=7)
    history = read_history(tmp_path, [NOW, NOW + 4990])  # a process of the same number
    assert [point.seconds for point in history.series["train"]] == list(range(1, 13))


def test_a_file_that_begins_after_a_full_disk_takes_nothing_back(tmp_path: Path) -> None:
    write_events(tmp_path, numbered(range(1, 6)), NOW)
    write_events(tmp_path, numbered(range(9, 11)), NOW + 8, number=1, first_step=9)
    history = read_history(tmp_path, [NOW])
    assert steps(history) == [1, 2, 3, 4, 5, 9, 10]
    assert [point.seconds for point in history.series["train"]][-2:] == [9, 10]


def test_the_final_figures_in_a_file_of_their_own_take_nothing_back(tmp_path: Path) -> None:
    write_events(tmp_path, numbered(range(1, 6)), NOW)
    write_events(tmp_path, {"held_out/loss": {5: 2.0}}, NOW + 9, number=1)
    history = read_history(tmp_path, [NOW])
    assert steps(history) == [1, 2, 3, 4, 5] and history.value("held_out_loss") == 2.0


@pytest.mark.parametrize("missing", [1, 5, 20, 30])
def test_a_record_half_written_is_no_damage(tmp_path: Path, missing: int) -> None:
    """As of a process that writes it now, or was killed."""
    path = write_events(tmp_path, numbered(range(1, 6)))
    path.write_bytes(path.read_bytes()[:-missing])
    history = read_history(tmp_path, [NOW])
    assert steps(history) == [1, 2, 3, 4] and history.damaged is None


@pytest.mark.parametrize("place", [-4, -15, -50, 3])
def test_a_flipped_bit_is_damage_and_what_stands_before_it_is_read(
    tmp_path: Path, place: int
) -> None:
    path = write_events(tmp_path, numbered(range(1, 6)))
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    history = read_history(tmp_path, [NOW])
    assert history.damaged == path.name
    assert len(history.series.get("train", [])) < 5


@pytest.mark.parametrize("content", [b"", b"no event file at all, and quite long"])
def test_an_empty_or_foreign_file_has_no_figures(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "events.out.tfevents.1.host.1.0"
    path.write_bytes(content)
    history = read_history(tmp_path, [])
    assert history.series == {} and history.last is None
    assert history.damaged == (path.name if content else None)


def test_tokens_between_two_entries_follow_the_steps() -> None:
    history = History({"tokens": [Point(10, 1.0, 100.0), Point(20, 2.0, 300.0)]})
    asked = (0, 5, 10, 15, 20, 21)
    assert [history.tokens_at(step) for step in asked] == [0.0, 50.0, 100.0, 200.0, 300.0, None]
    assert History().tokens_at(5) is None


def test_speed_of_a_run_is_tokens_by_time_not_the_mean_of_speeds() -> None:
    rates = [Point(10, 0, 100.0), Point(20, 0, 300.0), Point(21, 0, 0.0)]
    assert History({"tokens_per_second": rates}).tokens_per_second() == pytest.approx(150.0)
    assert History().tokens_per_second() is None
