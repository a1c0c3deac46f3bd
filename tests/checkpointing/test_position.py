"""Where a run stands is arithmetic, and says the same however micro-batches divide it."""

import pytest
from lightning.pytorch.loops.progress import _BatchProgress

from lightning_embed.checkpointing.position import Position
from lightning_embed.checkpointing.resume import UNLIMITED, is_validation_due, place_loops


def test_positions_follow_from_steps() -> None:
    start = Position()
    assert start.at(0, 9) == (0, 0, 0)
    assert start.at(8, 9) == (8, 0, 8)
    assert start.at(9, 9) == (9, 1, 0)  # the end of an epoch is the beginning of the next
    assert start.at(31, 9) == (31, 3, 4)


def test_going_on_in_two_parts_is_going_on_in_one() -> None:
    for middle in range(40):
        assert Position().at(middle, 9).at(40, 9) == Position().at(40, 9)


def test_epochs_of_another_length_begin_where_the_old_ones_end() -> None:
    assert Position(13, 1, 4).at(16, 7) == (16, 2, 0)


@pytest.mark.parametrize("every", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_validation_is_due_where_a_loop_like_lightnings_has_it(every: int, epochs: int) -> None:
    position = Position()
    assert not is_validation_due(position, 9, every, epochs)
    for epoch in range(4):
        for batch in range(9):
            position = position.at(position.step + 1, 9)
            wanted = (epoch + 1) % epochs == 0 and (batch + 1) % every == 0
            assert is_validation_due(position, 9, every, epochs) == wanted, position


def test_validation_across_epochs_counts_all_steps() -> None:
    due = [s for s in range(30) if is_validation_due(Position().at(s, 9), 9, 4, None)]
    assert due == [4, 8, 12, 16, 20, 24, 28]


def test_without_an_interval_validation_is_at_an_epochs_end() -> None:
    due = [s for s in range(30) if is_validation_due(Position().at(s, 9), 9, UNLIMITED, 1)]
    assert due == [9, 18, 27]


@pytest.mark.parametrize("accumulate", [1, 4])
def test_loops_are_placed_at_the_step_after(accumulate: int) -> None:
    loop: dict = {"epoch_progress": "old", "state_dict": {}}
    place_loops(loop, Position(13, 1, 4), accumulate)
    progress = _BatchProgress()
    progress.load_state_dict(loop["epoch_loop.batch_progress"])
    assert progress.current.ready == progress.current.completed == 4 * accumulate
    assert progress.total.ready == 13 * accumulate
    steps = loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]
    assert steps["total"]["completed"] == 13
    epochs = loop["epoch_progress"]["total"]
    assert (epochs["started"], epochs["completed"]) == (2, 1)
    place_loops(loop, Position(18, 2, 0), accumulate)
    epochs = loop["epoch_progress"]["total"]
    assert (epochs["started"], epochs["completed"]) == (2, 2)
