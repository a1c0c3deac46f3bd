"""`fit` and the commands that use its checkpoint, down to the files left behind."""

import csv
import re
import shlex
import shutil
from pathlib import Path

import lightning as L
import pytest
import torch
from workshop import (
    Outcome,
    Workshop,
    assert_same_weights,
    differs,
    load,
    padding_is_zero,
    run,
    run_apart,
    write_corpus,
)

from lightning_embed import LanguageModel
from lightning_embed.figures import PAGES
from lightning_embed.training import lightning_module

Finished = tuple[Workshop, Outcome]


def bits_per_byte(outcome: Outcome) -> float:
    return float(outcome.line("bits per byte"))


# -- what a run leaves behind ----------------------------------------------------------------


def test_a_fit_tells_how_good_it_became_and_where_it_lies(finished: Finished) -> None:
    shop, told = finished
    assert told.status == 0 and told.err == ""
    assert 0 < bits_per_byte(told) < 8
    best = Path(told.line("best").split("   ")[0])
    assert best == shop.checkpoint("done", "best") and best.is_file()
    assert told.line("padding").startswith("row zero")


def test_loss_falls(finished: Finished) -> None:
    _, told = finished
    losses = [float(x) for x in re.findall(r"step \d+.*?  loss ([\d.]+)", told.out)]
    assert losses[-1] < losses[0] - 1


@pytest.mark.parametrize("kind", ["last", "best"])
def test_checkpoints_are_ordinary_files_with_a_zero_padding_row(
    finished: Finished, kind: str
) -> None:
    path = finished[0].checkpoint("done", kind)
    assert padding_is_zero(path)
    saved = load(path)
    assert saved["hyper_parameters"]["vocab_size"] == len(
        saved["state_dict"]["model.embedding.weight"]
    )
    assert '"<pad>"' in saved["tokenizer"]


def test_a_checkpoint_loads_without_other_arguments_and_gives_logits(finished: Finished) -> None:
    model = LanguageModel.load_from_checkpoint(finished[0].checkpoint("done")).eval()
    ids = torch.tensor([[0, 7, 9, 1], [0, 5, 1, 1]])
    logits = model(ids)
    assert logits.shape == (2, 4, model.hparams["vocab_size"])
    assert torch.isneginf(logits[..., 1]).all()
    assert torch.isfinite(logits[..., 2:]).all()


def test_tensorboard_has_the_figures_and_the_samples(finished: Finished) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished[0].root / "done"))
    tags = events.Reload().Tags()
    arranged = {tag for page in PAGES.values() for chart in page.values() for tag in chart}
    assert arranged <= set(tags["scalars"])
    assert {event.value for event in events.Scalars("speed/recompilations")} == {0.0}
    assert all(event.value > 0 for event in events.Scalars("speed/mfu"))
    assert any(tag.startswith("samples/0") for tag in tags["tensors"])
    assert {event.value for event in events.Scalars("padding/norm")} == {0.0}
    steps = [event.step for event in events.Scalars("loss/train")]
    assert steps == sorted(set(steps)) and steps[0] == 1


def test_a_run_can_be_repeated_from_the_settings_it_wrote_down(
    finished: Finished, tmp_path: Path
) -> None:
    shop, _ = finished
    config = shop.root / "done" / "config.yaml"
    again = run(
        *("fit", "--config", config, "--name", "again"),
        *("--trainer.default_root_dir", tmp_path),
    )
    assert again.status == 0, again.err
    assert_same_weights(shop.checkpoint("done"), tmp_path / "again" / "checkpoints" / "last.ckpt")
    assert not list((shop.root / "done" / "checkpoints").glob("*-v*"))


def test_packed_rows_learn_as_well(finished: Finished, workshop: Workshop) -> None:
    told = workshop.fit("packed", "--trainer.max_epochs", "4", "--data.layout", "packed")
    assert padding_is_zero(workshop.checkpoint("packed"))
    assert differs(workshop.checkpoint("packed"), finished[0].checkpoint("done"))
    packed, padded = (
        float(x.line("held out validation loss").split()[0]) for x in (told, finished[1])
    )
    assert abs(packed - padded) < 0.3


# -- the same twice, and differently ---------------------------------------------------------


def test_a_second_fresh_run_takes_its_own_folder_and_is_bitwise_equal(workshop: Workshop) -> None:
    workshop.fit("twin", "--model.dropout", "0.1", steps=6)
    first = load(workshop.checkpoint("twin"))
    told = workshop.fit("twin", "--model.dropout", "0.1", steps=6)
    assert workshop.runs() == ["twin", "twin-2"]
    assert str(workshop.root / "twin-2") in told.line("note")
    assert_same_weights(workshop.checkpoint("twin"), workshop.checkpoint("twin-2"))
    assert torch.equal(
        load(workshop.checkpoint("twin"))["state_dict"]["model.embedding.weight"],
        first["state_dict"]["model.embedding.weight"],
    )


def test_the_seed_is_used(workshop: Workshop) -> None:
    workshop.fit("one", "--seed_everything", "1", steps=2)
    workshop.fit("two", "--seed_everything", "2", steps=2)
    assert differs(workshop.checkpoint("one"), workshop.checkpoint("two"))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_accumulation_does_not_change_the_training(workshop: Workshop, optimizer: str) -> None:
    """Global batches are cut into micro-batches; averaged gradients differ by rounding alone.

    AdamW makes more of it where a gradient is as small as its epsilon, Muon because its iteration
    runs in bfloat16: so the weights get more room.
    """
    for count in (1, 4):
        workshop.fit(
            f"acc{count}",
            *("--trainer.accumulate_grad_batches", str(count), "--model.optimizer", optimizer),
            steps=6,
        )
    assert_same_weights(
        workshop.checkpoint("acc1"),
        workshop.checkpoint("acc4"),
        tolerance=5e-5 if optimizer == "adamw" else 5e-3,
    )
    if optimizer == "adamw":
        one, four = (
            load(workshop.checkpoint(name))["optimizer_states"][0]["state"]
            for name in ("acc1", "acc4")
        )
        for number, state in one.items():
            torch.testing.assert_close(four[number]["exp_avg"], state["exp_avg"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])  # others have 32-true
def test_each_precision_keeps_the_padding_row_zero(workshop: Workshop, precision: str) -> None:
    told = workshop.fit("run", "--trainer.precision", precision, steps=4)
    assert precision in told.line("numbers")
    assert padding_is_zero(workshop.checkpoint("run"))
    assert bits_per_byte(told) > 0


def test_a_vocabulary_the_text_cannot_fill_is_said(workshop: Workshop) -> None:
    told = workshop.fit("run", "--data.vocab_size", "5000", steps=2)
    assert "the text supports no more" in told.line("tokens")


# -- after training --------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["validate", "test"])
def test_evaluating_alone_gives_what_the_fit_said(finished: Finished, command: str) -> None:
    shop, told = finished
    best = shop.checkpoint("done", "best")
    alone = shop.run(command, "--ckpt_path", best)
    assert alone.status == 0, alone.err
    assert bits_per_byte(alone) == bits_per_byte(told)
    kind = "test" if command == "test" else "validation"
    assert alone.line(f"held out {kind}") == told.line("held out validation")


def test_without_a_path_the_best_checkpoint_of_that_name_is_evaluated(finished: Finished) -> None:
    shop, told = finished
    alone = shop.run("validate", "--name", "done")
    assert alone.status == 0, alone.err
    assert bits_per_byte(alone) == bits_per_byte(told)


def test_predictions_add_up_to_the_same_bits_per_byte(finished: Finished) -> None:
    shop, told = finished
    found = shop.run("predict", "--ckpt_path", shop.checkpoint("done", "best"))
    assert found.status == 0, found.err
    path = Path(found.line("written").split(": ")[0])
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 and all(row["source"].endswith(".txt") for row in rows)
    n_bytes = sum(int(row["bytes"]) for row in rows)
    assert n_bytes == sum(
        Path(shop.files).parent.joinpath(r["source"]).stat().st_size for r in rows
    )
    bits = sum(float(row["bits_per_byte"]) * int(row["bytes"]) for row in rows)
    assert bits / n_bytes == pytest.approx(bits_per_byte(told), abs=1e-4)
    worst = [float(row["bits_per_byte"]) for row in rows]
    assert worst == sorted(worst, reverse=True)


def test_generate_works_after_the_checkpoint_has_moved(finished: Finished, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere.ckpt"
    shutil.copy(finished[0].checkpoint("done", "best"), moved)
    asked = ("generate", "--checkpoint", moved, "--prompt", "abc <pad>", "--max_new_tokens", "8")
    told = run(*asked)
    assert told.status == 0, told.err
    assert told.out.startswith("abc <pad>") and len(told.out) > len("abc <pad>\n")
    assert run(*asked).out == told.out
    two = run(*asked, "--samples", "2", "--temperature", "0")
    assert two.out.count("abc <pad>") == 2


# -- what a person sees ----------------------------------------------------------------------

LABELS = [
    *("run", "corpus", "tokens", "numbers", "compile", "finished", "speed", "pages"),
    *("held_out", "padding", "sample", "best", "watch", "go_on", "more"),
]


def test_a_whole_run_is_short_and_silent_about_libraries(corpus: str, tmp_path: Path) -> None:
    """In a process of its own, where no test runner swallows warnings."""
    config = tmp_path / "mine.yaml"
    config.write_text(
        "trainer:\n  max_epochs: 3\n  val_check_interval: 0.5\n  log_every_n_steps: 2\n"
        "early_stopping:\n  patience: 100\n",
        encoding="utf-8",
    )
    told = run_apart(
        *("fit", "--config", config, "--data.files", corpus),
        *("--data.cache_dir", tmp_path / "cache", "--trainer.default_root_dir", tmp_path / "runs"),
        *("--model.compile", "false", "--model.d_model", "32", "--model.n_heads", "2"),
        *("--samples.max_new_tokens", "5", "--data.vocab_size", "400"),
    )
    assert told.status == 0, told.err
    assert told.err == ""
    assert "arning" not in told.out
    lines = told.out.splitlines()
    assert len(lines) <= 40, told.out
    labels = [line[:9].strip().replace(" ", "_") for line in lines if line[:9].strip()]
    assert [label for label in labels if label != "length"] == LABELS
    masked = [re.sub(r"\d[\d.,:]*", "N", line) for line in lines]
    for wanted in (
        "         step N  loss N  first loss N after start",
        "compile  off, training runs eager: model.compile is false",
        "         bits per byte N",
        "padding  row zero after N steps",
    ):
        assert wanted in masked
    assert any(
        re.fullmatch(r" +step N/N  N %  loss N  N.* real tok/s.*MFU N %  data wait N %  N GB", x)
        for x in masked
    )
    (speed,) = (line for line in masked if line.startswith("speed"))
    assert re.search(r"real tok/s .*FLOP/s of .* measured: MFU N %   peak N GB$", speed)


def test_a_profiler_that_is_asked_for_reports(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    workshop.fit("run", "--trainer.profiler", "simple", steps=3)
    assert "run_training_batch" in caplog.text


def test_files_are_one_pattern_or_a_list(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_corpus(tmp_path / "here", 3)
    monkeypatch.chdir(tmp_path / "here")
    told = workshop.fit("one", "--data.files", "*.txt", steps=1)  # to YAML, an alias
    assert "3 files" in told.line("corpus")
    told = workshop.fit("two", "--data.files", "[doc00.txt, doc01.txt]", steps=1)
    assert "2 files" in told.line("corpus")


def test_a_run_without_validation_ends_well_and_says_so(workshop: Workshop) -> None:
    told = workshop.fit("unseen", "--trainer.limit_val_batches", "0", steps=3)
    assert "held out not evaluated: --trainer.limit_val_batches" in told.out
    assert told.line("best").startswith("none, no validation ran")
    assert workshop.checkpoint("unseen").exists()
    more = ("--name", "unseen", "--ckpt_path", "last", "--trainer.limit_val_batches", "0")
    assert "held out not evaluated" in workshop.run("validate", *more).out


def test_nothing_to_predict_is_said(finished: Finished) -> None:
    more = ("--name", "done", "--ckpt_path", "last", "--trainer.limit_predict_batches", "0")
    told = finished[0].run("predict", *more)
    assert "--trainer.limit_predict_batches is 0" in told.error_line()


def test_the_configuration_lies_in_the_runs_folder_without_a_logger(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    workshop.fit("run", "--trainer.logger", "false", steps=2)
    assert (workshop.root / "run" / "config.yaml").is_file()
    assert not (workshop.root / "config.yaml").exists()


def test_a_run_that_is_over_can_be_made_longer_by_the_line_it_prints(workshop: Workshop) -> None:
    told = workshop.fit("run", steps=3)
    words = shlex.split(told.line("go on"))
    assert words[-4:] == ["--trainer.max_steps", "6", "--model.schedule_steps", "6"]
    longer = run(*words[2:])
    assert longer.status == 0 and "finished 3 steps" in longer.out, longer.err
    assert load(workshop.checkpoint("run"))["global_step"] == 6
    again = workshop.run("fit", "--name", "run", "--ckpt_path", "last", "--trainer.max_steps", "6")
    assert "nothing was left to train: the run is at step 6 already" in again.line("note")


@pytest.mark.parametrize(
    ("why", "options"),
    [
        ("--trainer.max_time is over", ("--trainer.max_time", "00:00:00:01")),
        (
            "validation loss falls no longer",
            ("--early_stopping.patience", "1", "--early_stopping.min_delta", "100"),
        ),
        ("a callback asked for it", (f"--trainer.callbacks+={__name__}.StopAtOnce",)),
    ],
)
def test_an_early_end_says_why(workshop: Workshop, why: str, options: tuple[str, ...]) -> None:
    more = ("--trainer.val_check_interval", "2", "--trainer.check_val_every_n_epoch", "null")
    told = workshop.fit("run", *options, *more, steps=2000)
    assert told.line("note") == f"stopped before the planned end: {why}"


class StopAtOnce(L.Callback):
    def on_train_batch_end(self, trainer: L.Trainer, *args: object) -> None:
        trainer.should_stop = True


@pytest.mark.parametrize(
    ("no_compiler", "told"),
    [
        (None, "3 steps are over before compiling pays; --model.compile"),
        ("no C++ compiler found", "no C++ compiler found"),
    ],
)
def test_a_run_that_is_not_compiled_says_why(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, no_compiler: str | None, told: str
) -> None:
    monkeypatch.setattr(lightning_module, "why_not_compile", lambda device: no_compiler)
    line = workshop.fit("run", "--model.compile", "auto", steps=3).line("compile")
    assert "eager" in line and told in line
