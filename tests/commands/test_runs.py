"""The `runs` command: real runs in one table, stopped and resumed ones too, and mistakes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from made_runs import make_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from terminal import on_terminal
from workshop import ROOT, Outcome, Workshop, load, run

from lightning_embed.cli import main
from lightning_embed.comparing.record import read_runs


def test_a_real_run(finished: tuple[Workshop, Outcome]) -> None:
    shop, told = finished
    (row,) = json.loads(run("runs", shop.root, "--json").out)
    assert (row["name"], row["state"], row["problem"]) == ("done", "finished", None)
    assert f"after {row['steps']} steps" in told.line("padding")
    assert told.line("held out validation loss").startswith(f"{row['loss']:.4f} ")
    assert row["bits_per_byte"] == pytest.approx(float(told.line("bits per byte")), abs=1e-4)
    assert row["tokens_per_second"] > 0 and 0 < row["minutes"] < 10
    weights = load(shop.checkpoint("done"))["state_dict"].values()
    assert row["parameters"] == sum(weight.numel() for weight in weights)


def test_a_run_that_was_stopped_and_resumed_is_one_row_with_one_curve(workshop: Workshop) -> None:
    often = ("--trainer.log_every_n_steps", "1")
    stop = ("--trainer.callbacks+", "workshop.SignalAt", "--trainer.callbacks.step", "6")
    workshop.run("fit", "--name", "a", "--trainer.max_steps", "12", *often, *stop)
    (row,) = json.loads(run("runs", workshop.root, "--json").out)
    assert row["steps"] < 12 and row["state"] != "finished"
    workshop.fit("a", *often, "--ckpt_path", "last", steps=12)
    ((found,), _) = read_runs([workshop.root])
    assert (found.steps, found.state) == (12, "finished")
    points = found.history.series["train"]
    assert [point.step for point in points] == list(range(1, 13))
    seconds = [point.seconds for point in points]
    assert seconds == sorted(seconds)
    shown = EventAccumulator(str(found.folder))
    shown.Reload()
    tag = next(tag for tag in ("train/loss", "loss/train") if tag in shown.Tags()["scalars"])
    assert [point.value for point in points] == [event.value for event in shown.Scalars(tag)]


def test_order_without_sort_is_the_latest_first_or_as_given(tmp_path: Path) -> None:
    old, new = make_run(tmp_path / "a", began=1e9), make_run(tmp_path / "b", began=2e9)

    def names(*args: str | Path) -> list[str]:
        return [row["name"] for row in json.loads(run("runs", *args, "--json").out)]

    assert names(tmp_path) == ["b", "a"] and names(tmp_path, "--reverse") == ["a", "b"]
    assert names(old, new) == ["a", "b"] and names(new, old) == ["b", "a"]
    assert names(tmp_path, "--sort", "name") == ["a", "b"]
    assert names(tmp_path, "--sort", "started", "--reverse") == ["b", "a"]


def test_the_page_is_written_and_named(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a"), make_run(tmp_path / "b", model__lr=0.01)
    file = tmp_path / "new" / "compared.html"
    told = run("runs", a, b, "--html", file)
    assert told.line("written") == str(file) and "model.lr=0.01" in told.out
    assert "model.<wbr>lr" in file.read_text(encoding="utf-8")
    assert json.loads(run("runs", a, b, "--html", file, "--json").out)[1]["name"] == "b"


def test_a_page_takes_no_folders_or_other_files_place(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a")
    notes = tmp_path / "notes.md"
    notes.write_text("mine", encoding="utf-8")
    (tmp_path / "folder.html").mkdir()
    for target in (a, notes, tmp_path / "folder.html"):
        assert "--html" in run("runs", a, "--html", target).error_line()
    assert notes.read_text(encoding="utf-8") == "mine" and (a / "run.json").is_file()
    assert "--html" in run("runs", a, "--html", notes / "x.html").error_line()


def test_folders_that_are_no_runs_are_named_beside_the_table(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    for number in range(12):
        (tmp_path / f"other{number:02}").mkdir()
    told = run("runs", tmp_path)
    assert told.status == 0 and told.out.splitlines()[1].startswith("a ")
    assert told.err.splitlines()[0] == f"skipped  {tmp_path / 'other00'}: it is empty"
    assert told.err.splitlines()[-1] == "skipped  2 more folders"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["no/such/folder"], "no run in no/such/folder"),
        (["--sort", "nonsense"], "--sort nonsense is no column"),
        (["--sort", "model.nonsense"], "--sort model.nonsense is no column"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, args: list[str], words: str) -> None:
    make_run(tmp_path / "a")
    told = run("runs", *(args if args[0] != "--sort" else [tmp_path, *args]))
    assert told.status == 1 and told.err.splitlines()[-1].startswith(f"error: {words}")


def test_an_unknown_option_is_told_in_one_line() -> None:
    told = run("runs", "--sort-by", "loss")
    assert told.status == 2 and "--sort-by" in told.error_line()


def test_it_starts_without_torch(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    program = (
        "import sys; from lightning_embed.cli import main; main(sys.argv[1:]);"
        "print(*({'torch', 'lightning', 'jsonargparse', 'tensorflow'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, "runs", str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert told.stdout.splitlines()[-1] == ""


@pytest.mark.parametrize("width", [0, 40, 80])
def test_it_fits_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """One of 0 columns does not say how many it has."""
    make_run(tmp_path / "a run", model__lr=0.1)
    make_run(tmp_path / "größe", data__files=[f"file{number}.txt" for number in range(20)])
    with on_terminal(monkeypatch, width) as screen:
        assert main(["runs", str(tmp_path)]) == 0
    longest = max(len(line) for line in screen.text.splitlines())
    assert longest <= (width or 80) and screen.wraps == 0
    assert longest > (width or 80) * 0.7
