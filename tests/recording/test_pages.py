"""What a run leaves for TensorBoard: every tag, its steps and values; after a kill too."""

import re
import signal
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from workshop import Outcome, Workshop, run_apart

from lightning_embed.errors import UserError
from lightning_embed.figures import PAGES
from lightning_embed.recording import drawings
from lightning_embed.recording.pages import Pages
from lightning_embed.recording.summaries import RESULTS, flat

Finished = tuple[Workshop, Outcome]
OFTEN = (
    *("--trainer.log_every_n_steps", "2", "--loss_watch.every_n_steps", "2"),
    *("--padding_guard.every_n_steps", "2", "--trainer.val_check_interval", "4"),
)


def events_of(folder: Path) -> EventAccumulator:
    """All of a folder's event files by TensorBoard's own rules, nothing sampled."""
    everything = {kind: 0 for kind in ("scalars", "histograms", "images", "tensors")}
    return EventAccumulator(str(folder), size_guidance=everything).Reload()


def curve(events: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events.Scalars(tag)]


def printed(told: Outcome) -> dict[str, list[tuple[int, str]]]:
    """Steps and losses in the lines of a run, and those of its validations."""
    return {
        tag: [(int(step), loss) for step, loss in re.findall(pattern, told.out)]
        for tag, pattern in (
            ("loss/train", r" step (\d+)(?:/\d+ .*?)?  loss ([\d.]+)"),
            ("loss/validation", r"validation at step (\d+): loss ([\d.]+)"),
        )
    }


def session(events: EventAccumulator) -> HParamsPluginData:
    found: dict[str, bytes] = events.PluginTagToContent("hparams")
    return HParamsPluginData.FromString(found["_hparams_/session_start_info"])


@pytest.fixture(scope="module")
def done(finished: Finished) -> EventAccumulator:
    return events_of(finished[0].root / "done")


def test_every_page_has_something(done: EventAccumulator) -> None:
    tags = done.Tags()
    arranged = {tag for page in PAGES.values() for chart in page.values() for tag in chart}
    assert arranged | set(RESULTS.values()) <= set(tags["scalars"])
    assert {"weights/block 0", "weights/block 1", "weights/embedding"} <= set(tags["histograms"])
    assert {"weights_gradient/block 1", "weights_row_norm/padding"} <= set(tags["histograms"])
    texts = {name.removesuffix("/text_summary") for name in tags["tensors"]}
    run = {"run/1 command and machine", "run/2 network", "run/3 config"}
    assert {"custom_scalars__config__", "samples/0", *run} <= texts
    # TensorBoard sorts by name: what tells the story comes before what is for a closer look.
    groups = sorted({tag.partition("/")[0] for tag in (*tags["scalars"], *tags["histograms"])})
    assert groups[0] == "loss" and [g for g in groups if g > "speed"] == groups[-3:]


def test_values_are_those_printed(finished: Finished, done: EventAccumulator) -> None:
    told = finished[1]
    for tag, lines in printed(told).items():
        logged = dict(curve(done, tag))
        both = [(step, loss) for step, loss in lines if step in logged]
        assert len(both) > 1
        assert both == [
            (step, f"{logged[step]:.{len(loss.partition('.')[2])}f}") for step, loss in both
        ]
    loss, bits = (done.Scalars(f"quality/held_out_{k}")[0].value for k in ("loss", "bits_per_byte"))
    assert f"validation loss {loss:.4f}   perplexity" in told.out
    assert told.line("bits per byte") == f"{bits:.4f}"


def test_tokens_seen_are_those_of_the_text(finished: Finished, done: EventAccumulator) -> None:
    """Four epochs, in which every token but the first of each document is a target once."""
    found = re.search(r"([\d.]+) k to train", finished[1].line("tokens"))
    assert found is not None
    seen = curve(done, "progress/tokens")
    assert seen[-1][1] == pytest.approx(4 * 1000 * float(found[1]), rel=0.05)
    assert seen == sorted(seen)


def test_hparams_have_settings_of_one_level(finished: Finished, done: EventAccumulator) -> None:
    found = session(done).session_start_info.hparams
    assert found["model.d_model"].number_value == 32
    assert found["parameters"].number_value > 0 and found["machine"].string_value
    assert found["data.layout"].string_value == "padded"


def test_a_killed_and_resumed_run_has_one_curve_and_one_row(workshop: Workshop) -> None:
    kill = ("--trainer.callbacks+=workshop.SignalAt", "--trainer.callbacks.step=11")
    steps = ("--trainer.max_steps", "20", "--checkpoints.every_n_steps", "3", *OFTEN)
    fit = workshop.arguments("fit", "--name", "r", *steps)
    where = {"PYTHONPATH": str(Path(__file__).parent.parent)}
    killed = run_apart(*fit, *kill, "--trainer.callbacks.signal_name=SIGKILL", environment=where)
    assert killed.status == -signal.SIGKILL
    begun = session(events_of(workshop.root / "r")).session_start_info.hparams
    told = workshop.fit("r", *steps, "--ckpt_path", "last", "--model.lr", "0.002")
    assert "step 9," in told.line("resume")
    events = events_of(workshop.root / "r")
    for tag in events.Tags()["scalars"]:
        at = [event.step for event in events.Scalars(tag)]
        assert at == sorted(set(at)), tag
    train = [step for step, _ in curve(events, "loss/train")]
    assert train == [1, *range(2, 21, 2)]
    assert [step for step, _ in curve(events, "progress/tokens")] == train
    assert [step for step, _ in curve(events, "loss/validation")] == [4, 8, 13, 17, 20]
    seen = [tokens for _, tokens in curve(events, "progress/tokens")]
    assert seen == sorted(set(seen))
    weights = [event.step for event in events.Histograms("weights/block 0")]
    assert weights == [4, 8, 13, 17, 20]
    assert {*RESULTS.values()} <= set(events.Tags()["scalars"])
    now = session(events).session_start_info.hparams
    assert now == begun and now["model.lr"].number_value == 0.003  # the row it began with


def test_vectors_for_the_projector(finished: Finished) -> None:
    folder = finished[0].root / "done"
    names = (folder / "projector" / "tokens.tsv").read_text(encoding="utf-8").splitlines()
    (vectors,) = (folder / "projector").glob("step-*.tsv")
    rows = vectors.read_text().splitlines()
    assert names[0] == "token\tid\tcount\tkind" and len(names) == len(rows) + 1
    assert names[2].split("\t") == ["<pad> (padding)", "1", "0", "padding"]
    assert set(rows[1].split("\t")) == {"0"} and len(rows[0].split("\t")) == 32
    counts = [int(line.split("\t")[2]) for line in names[5:]]
    assert counts == sorted(counts, reverse=True)
    assert vectors.name in (folder / "projector_config.pbtxt").read_text()


def test_pictures_or_a_line_that_says_what_is_missing(finished: Finished) -> None:
    shop, told = finished
    pictures = sorted(path.name for path in shop.root.glob("done/pictures/*"))
    if drawings.can_draw():
        assert pictures == ["loss_by_position.png", "norm_by_frequency.png", "window_lengths.png"]
        folder = shop.root / "done" / "pictures"
        assert f"3 pictures in {folder}; took" in " ".join(told.out.split())  # may be cut
    else:
        assert not pictures and "lightning_embed[plots]" in told.line("no pictures")


def test_a_run_without_pages(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawings, "can_draw", lambda: False)
    off = ("--pages.histograms", "false", "--pages.projector", "never", "--pages.pictures", "false")
    told = workshop.fit("r", *off, steps=2)
    assert not [line for line in told.out.splitlines() if line.startswith("pages ")]
    assert "no pictures" not in told.out
    assert not events_of(workshop.root / "r").Tags()["histograms"]
    assert not (workshop.root / "r" / "projector").exists()


def test_loggers_of_other_makers_get_the_figures(workshop: Workshop) -> None:
    """Two at once; neither has pages, and nobody minds."""
    import csv

    folder = workshop.root / "own"
    tensorboard = f"{{class_path: TensorBoardLogger, init_args: {{save_dir: {folder}/tb}}}}"
    table = f"{{class_path: CSVLogger, init_args: {{save_dir: {folder}/csv}}}}"
    workshop.fit("r", "--trainer.logger", f"[{tensorboard}, {table}]", *OFTEN, steps=8)
    (metrics,) = folder.glob("csv/**/metrics.csv")
    with open(metrics, newline="") as file:
        rows = list(csv.DictReader(file))
    (events,) = {path.parent for path in folder.glob("tb/**/events.*")}
    named = {name for row in rows for name, value in row.items() if value}
    theirs = set(events_of(events).Tags()["scalars"])  # Lightning's own logger has two more
    assert named - {"step", "epoch"} == theirs - {"epoch", "hp_metric"}
    assert "quality/held_out_loss" in named and "loss/validation" in named


def test_no_logger(workshop: Workshop) -> None:
    told = workshop.fit("r", "--trainer.logger", "false", steps=2)
    assert "tensorboard --logdir" not in told.out
    assert not list(workshop.root.glob("r/events.*")) and "vectors" not in told.out


def test_a_folder_of_logs_that_cannot_be_written(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for kind in ("TensorBoardLogger", "CSVLogger"):
        logger = (
            "--trainer.logger",
            kind,
            "--trainer.logger.save_dir",
            str(tmp_path / "file" / "x"),
        )
        told = workshop.run("fit", *logger, "--trainer.max_steps", "2")
        assert "is a file" in told.error_line() and "--trainer.logger" in told.error_line()
        assert "tokens" not in told.out  # before any text is read


def test_bad_settings() -> None:
    with pytest.raises(UserError, match="choose end, validation or never"):
        Pages(projector="often")  # type: ignore[arg-type]


def test_nested_settings_become_one_level() -> None:
    nested = {"a": {"b": 1, "c": [1, 2]}, "d": None, "e": True}
    assert flat(nested) == {"a.b": 1, "a.c": "[1, 2]", "d": "none", "e": True}
