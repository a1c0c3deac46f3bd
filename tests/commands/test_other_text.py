"""Which text `validate`, `test` and `predict` score, and how much of it figures are of."""

import csv
import shutil
from pathlib import Path

import pytest
from workshop import Outcome, Workshop, load, run

from lightning_embed.sources.corpus import choose_source, to_score
from lightning_embed.sources.source import About
from lightning_embed.tokens.reading import read

Finished = tuple[Workshop, Outcome]


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Workshop:
    """The finished run's folder, copied, so that a test may write into it."""
    shop, _ = finished
    shutil.copytree(shop.root / "done", tmp_path / "runs" / "done")
    return Workshop(shop.files, shop.cache, tmp_path / "runs")


def score(shop: Workshop, command: str, *more: str | Path) -> Outcome:
    """With what a person would type: nothing about tokenizer, shape or window length."""
    where = ("--data.cache_dir", shop.cache, "--trainer.default_root_dir", shop.root)
    device = ("--trainer.accelerator", "cpu", "--trainer.precision", "32-true")
    told = run(command, "--name", "done", *device, *where, *more)
    assert told.status == 0, told.err
    return told


@pytest.fixture
def other(tmp_path: Path) -> Path:
    path = tmp_path / "other.txt"
    path.write_text("abc def gab cab. " * 40, encoding="utf-8")
    return path


@pytest.mark.parametrize(("command", "kind"), [("validate", "validation"), ("test", "test")])
def test_another_text_is_scored_as_a_whole_and_named(
    copied: Workshop, other: Path, command: str, kind: str
) -> None:
    told = score(copied, command, "--data.files", other)
    assert told.line(f"all of   other.txt: {kind} loss")
    assert " bytes" not in told.out
    limited = score(
        copied,
        command,
        *("--data.files", other, "--data.tokens_per_batch", "32"),
        *(f"--trainer.limit_{'test' if command == 'test' else 'val'}_batches", "1"),
    )
    assert limited.line(f"part of  other.txt: {kind} loss")
    assert limited.line("of ").endswith(f" of its {other.stat().st_size} bytes")


def test_a_short_look_after_training_is_no_limit_of_an_evaluation(copied: Workshop) -> None:
    """The configuration of a run by `--minutes` may have it."""
    told = score(copied, "validate", "--data.files", copied.files, "--data.final_eval_tokens", "32")
    assert told.line("held out") and " bytes\n" not in told.out


@pytest.mark.parametrize("named", [True, False])
def test_the_runs_own_text_is_scored_where_it_was_held_out(
    finished: Finished, copied: Workshop, named: bool
) -> None:
    """Found again without the settings it was prepared with, and where none is named at all."""
    told = score(copied, "validate", *(("--data.files", copied.files) if named else ()))
    wanted = finished[1].line("held out validation")
    found = told.line("held out validation")
    assert found.split()[1] == wanted.split()[1]


def test_tokens_that_are_gone_are_not_replaced_by_another_text(
    copied: Workshop, tmp_path: Path
) -> None:
    told = run(
        *("validate", "--name", "done", "--trainer.default_root_dir", copied.root),
        *("--data.cache_dir", tmp_path / "empty"),
    )
    assert "--data.files" in told.error_line()


def test_predictions_of_texts_do_not_replace_each_other(copied: Workshop, other: Path) -> None:
    again = other.parent / "elsewhere" / other.name
    again.parent.mkdir()
    again.write_text("gab cab fade. " * 30, encoding="utf-8")
    names = []
    for files in ((), ("--data.files", other), ("--data.files", again)):
        path = Path(score(copied, "predict", *files).line("written").split(": ")[0])
        names.append(path.name)
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if files:
            assert [row["source"] for row in rows] == ["other.txt"]
            assert int(rows[0]["bytes"]) == Path(files[1]).stat().st_size
    assert names[0] == "predictions.csv"
    assert len(set(names)) == 3 and all(n.startswith("predictions-other.txt-") for n in names[1:])


def test_the_checkpoints_tokenizer_may_be_named(copied: Workshop, other: Path) -> None:
    own = copied.root / "done" / "tokenizer.json"
    told = score(copied, "validate", "--data.files", other, "--data.tokenizer", own)
    assert told.line("all of   other.txt")


def test_many_files_are_scored_as_they_are(tmp_path: Path) -> None:
    """Neither split by name nor cut in two."""
    for number in range(25):
        (tmp_path / f"{number}.txt").write_text(f"text number {number}")
    for pattern in (str(tmp_path / "*.txt"), str(tmp_path / "7.txt")):
        source = choose_source(pattern)
        whole = to_score(source)
        about = About()
        documents = list(read(whole, about))
        assert all(document.held_out for document in documents)
        assert len(documents) == about.counts["files"]
        assert whole.fingerprint != source.fingerprint


class Mine:
    """A source of one's own that holds nothing out."""

    fingerprint = "mine"

    def documents(self, about: About):  # type: ignore[no-untyped-def]
        from lightning_embed.sources.source import Document

        yield Document("some text", "mine")


def test_a_source_of_ones_own_is_scored_as_a_whole() -> None:
    about = About()
    (document,) = read(to_score(Mine()), about)
    assert document.held_out and to_score(Mine()).fingerprint != "mine"


# -- how much of it ----------------------------------------------------------------------------


def test_one_validation_batch_is_one_and_the_final_figures_are_of_everything(
    finished: Finished, workshop: Workshop
) -> None:
    often = ("--trainer.val_check_interval", "5", "--data.tokens_per_batch", "64")
    shown = {}
    for limit in ("1", "1.0"):
        limited = ("--trainer.limit_val_batches", limit)
        told = workshop.fit(f"limit{limit[1:]}", *limited, *often, steps=5)
        shown[limit] = (told.line("validation at step 5"), told.line("held out validation"))
        assert " bytes" not in told.out and "ratio" in told.line("xz -9e")
    assert shown["1"][0] != shown["1.0"][0]
    assert shown["1"][1] == shown["1.0"][1]


def test_a_resume_tells_one_batch_from_all(workshop: Workshop) -> None:
    workshop.fit("run", "--trainer.limit_val_batches", "1", steps=2)
    told = workshop.fit("run", "--trainer.limit_val_batches", "1.0", "--ckpt_path", "last", steps=3)
    assert "trainer.limit_val_batches 1 -> 1.0" in told.out


def test_what_serves_instead_of_a_dry_run_is_one_step_and_one_batch(workshop: Workshop) -> None:
    advice = workshop.run("fit", "--trainer.fast_dev_run", "true").error_line()
    flags = advice.partition("take ")[2].split()
    told = workshop.fit("run", *flags)
    assert "finished 1 steps" in told.out
    loops = load(workshop.checkpoint("run"))["loops"]["fit_loop"]
    assert loops["epoch_loop.val_loop.batch_progress"]["total"]["completed"] == 1


def test_the_best_checkpoint_is_of_the_highest_accuracy(workshop: Workshop) -> None:
    best = ("--checkpoints.monitor", "val/accuracy", "--checkpoints.mode", "max")
    workshop.fit("run", *best, "--trainer.val_check_interval", "4", steps=12)
    state = load(workshop.checkpoint("run"))["callbacks"]["Checkpoints"]
    assert 0 < state["best"] <= 1 and state["best_step"] > 4


# -- settings without effect -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (
            (
                *("--model.optimizer", "adamw", "--model.muon_lr", "0.1"),
                *("--model.schedule", "cosine", "--model.decay_fraction", "0.1"),
                *("--samples.max_new_tokens", "0", "--samples.temperature", "2"),
                *("--trainer.limit_val_batches", "0", "--early_stopping.patience", "2"),
                *("--trainer.gradient_clip_val", "0"),
                *("--trainer.gradient_clip_algorithm", "value"),
            ),
            {
                *("model.muon_lr", "model.decay_fraction", "samples.temperature"),
                *("early_stopping.patience", "trainer.gradient_clip_algorithm"),
            },
        ),
        (
            ("--model.schedule", "constant", "--model.final_fraction", "0.1"),
            {"model.final_fraction"},
        ),
        (("--model.optimizer", "adamw", "--model.betas", "[0.8, 0.9]"), set()),
    ],
)
def test_a_setting_that_changes_nothing_is_said_once(
    workshop: Workshop, given: tuple[str, ...], wanted: set[str]
) -> None:
    told = workshop.fit("run", *given, steps=1)
    found = [line for line in told.out.splitlines() if "has no effect" in line]
    assert sorted(line.split()[1].removeprefix("--") for line in found) == sorted(wanted)


# -- a text that repeats itself ----------------------------------------------------------------


def test_a_repetitive_text_ends_well_without_a_ratio(workshop: Workshop, tmp_path: Path) -> None:
    path = tmp_path / "yes.txt"
    path.write_text("naïve café\n" * 3000, encoding="utf-8")
    told = workshop.fit("run", "--data.files", path, steps=2)
    assert "ratio" not in told.line("xz -9e") and told.line("best")
