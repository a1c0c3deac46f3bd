"""The table fits any terminal, sorts by any column, and shows what differs."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from made_runs import NOW, make_run, write_events

from lightning_embed.comparing.record import Record, read_runs
from lightning_embed.comparing.table import COLUMNS, is_column, lines, row, sort_runs
from lightning_embed.console import cells


@pytest.fixture
def five(tmp_path: Path) -> list[Record]:
    """Runs of different settings, lengths and ends, in no order."""
    root = tmp_path / "runs"
    make_run(root / "small", 3.4, 20, NOW + 500, model__d_model=32)
    make_run(root / "a rather long name of a run", 2.9, 40, NOW, model__lr=0.01)
    make_run(root / "größe", 3.1, 30, NOW + 100, data__max_length=512, about={"parameters": 999})
    make_run(root / "stopped", 3.3, 10, NOW + 300, ended=False, trainer__max_steps=40)
    make_run(root / "試験 9", 3.2, 25, NOW + 200, about={"parameters": 124_000_000})
    runs, skipped = read_runs([root])
    assert len(runs) == 5 and skipped == []
    return runs


def names(runs: list[Record]) -> list[str]:
    return [run.label.partition(" ")[0] for run in runs]


@pytest.mark.parametrize("width", [1, 10, 20, 40, 60, 80, 100, 200, 1000])
def test_no_line_is_wider_than_the_terminal(five: list[Record], width: int) -> None:
    broken = replace(five[0], state="damaged", problem="last.ckpt is damaged, as its end is gone")
    table = lines([*five, broken], width)
    if width >= 40:
        assert max(cells(line) for line in table) <= width
    assert len([line for line in table if not line.startswith(" ")]) >= 6


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (40, ["name", "state", "loss", "bits/byte"]),
        (80, ["name", "started", "state", "steps", "minutes", "loss", "bits/byte"]),
        (100, [column.heading for column in COLUMNS.values()]),
    ],
)
def test_what_matters_least_is_left_out_first(
    five: list[Record], width: int, shown: list[str]
) -> None:
    assert lines(five, width)[0].split() == shown


def test_settings_that_differ_stand_beside_the_row_or_below_it(five: list[Record]) -> None:
    first, small = five[0], next(run for run in five if run.label == "small")
    wide, narrow = lines([first, small], 160), lines([first, small], 80)
    assert wide[0].endswith("settings") and len(wide) == 3
    assert wide[2].endswith("model.d_model=32 model.lr=0.003")
    assert narrow[3] == "    model.d_model=32 model.lr=0.003"
    assert lines([first], 160)[0].split()[-1] == "tok/s"  # nothing differs


def test_a_long_name_is_cut(five: list[Record]) -> None:
    (found,) = (line for line in lines(five, 60) if line.startswith("a rather"))
    assert "…" in found and cells(found) <= 60


def test_letters_of_two_columns_are_counted_so(five: list[Record]) -> None:
    assert (cells("試験 9"), cells("größe"), cells("e\u0301")) == (6, 5, 1)
    table = [line for line in lines(five, 100) if not line.startswith(" ")]
    assert len({cells(line) for line in table}) == 1


@pytest.mark.parametrize(
    ("column", "order"),
    [
        ("name", ["a", "größe", "small", "stopped", "試験"]),
        ("started", ["a", "größe", "試験", "stopped", "small"]),
        ("state", ["a", "größe", "small", "試験", "stopped"]),
        ("steps", ["stopped", "small", "試験", "größe", "a"]),
        ("parameters", ["größe", "a", "small", "stopped", "試験"]),
        ("minutes", ["stopped", "small", "試験", "größe", "a"]),
        ("loss", ["a", "größe", "試験", "small", "stopped"]),
        ("bits_per_byte", ["a", "größe", "試験", "small", "stopped"]),
        ("model.d_model", ["small", "a", "größe", "stopped", "試験"]),
        ("model.lr", ["größe", "small", "stopped", "試験", "a"]),
    ],
)
def test_runs_sort_by_any_column(five: list[Record], column: str, order: list[str]) -> None:
    assert is_column(column, five)
    assert names(sort_runs(five, column, reverse=False)) == order


def test_the_other_columns_sort_too(five: list[Record]) -> None:
    speeds = [run.tokens_per_second for run in sort_runs(five, "tokens_per_second", False)]
    assert speeds == sorted(speeds)
    by_settings = sort_runs(five, "settings", False)
    assert by_settings[0] is five[0]  # from which nothing differs
    assert not is_column("nonsense", five) and not is_column("model.nonsense", five)


def test_descending_and_what_is_unknown_comes_last(five: list[Record]) -> None:
    unknown = replace(five[0], label="unknown", parameters=None)
    for reverse in (False, True):
        assert names(sort_runs([unknown, *five], "parameters", reverse))[-1] == "unknown"
    assert names(sort_runs(five, "loss", True))[0] == "stopped"


def test_a_row_as_json(tmp_path: Path, five: list[Record]) -> None:
    first, small = five[0], next(run for run in five if run.label == "small")
    found = json.loads(json.dumps(row(small, first), allow_nan=False))
    assert found["name"] == "small" and found["folder"].endswith("runs/small")
    assert (found["steps"], found["state"]) == (20, "finished")
    assert found["loss"] == pytest.approx(3.4)
    assert found["settings"] == {"model.d_model": 32, "model.lr": 0.003}
    assert set(COLUMNS) < set(found)


def test_a_loss_that_is_not_finite_is_told(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", ended=False)
    write_events(folder, {"loss/validation": {20: math.nan}}, NOW + 60, number=1)
    ((run,), _) = read_runs([folder])
    assert row(run, run)["loss"] == "nan"
    assert "nan" in lines([run], 80)[1]
    assert sort_runs([run, run], "loss", False) == [run, run]
