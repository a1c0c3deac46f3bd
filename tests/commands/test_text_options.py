"""Which text the command line means, and which of its options do nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import Namespace
from workshop import ROOT, TINY, Workshop, run

from lightning_embed.commands.no_effect import DATA, note_without_effect
from lightning_embed.commands.parser import add_up_lists
from lightning_embed.commands.text_choice import OPTIONS_OF, prefer_later_text

ONE_STEP = ("--trainer.max_steps", "1", "--trainer.limit_val_batches", "0")


# -- several files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("--data.files a --data.files b", "--data.files=a --data.files+=b"),
        ("--data.files a b c --x 1", "--data.files=a --data.files+=b --data.files+=c --x 1"),
        ("--data.files=a --data.files=b", "--data.files=a --data.files+=b"),
        ("--data.files=a --data.files+=b", "--data.files=a --data.files+=b"),
        ("--data.files a --data.files null", "--data.files=a --data.files=null"),
        ("--data.files+=b", "--data.files+=b"),
        ("--x 1 2 --data.files [a,b] -c d", "--x 1 2 --data.files=[a,b] -c d"),
        ("--data.files", "--data.files"),
        ("--data.files --x", "--data.files --x"),
        ("", ""),
        ("--data.filez a b", "--data.filez a b"),
        ("--stop a --stop=[b,c]", "--stop=[a] --stop+=['[b,c]']"),
        ("--stop null", "--stop=['null']"),
        ("--stop=", "--stop=['']"),
    ],
)
def test_a_repeated_list_adds_up(given: str, found: str) -> None:
    assert add_up_lists(given.split()) == found.split()


def test_all_named_files_are_used(workshop: Workshop, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("one a.txt", "two.txt", "three.txt")]
    for file in files:
        file.write_text(f"{file.stem} is a text of its own, of some length. " * 20)
    one, two, three = files
    settings = tmp_path / "one.yaml"
    settings.write_text(json.dumps({"data": {"files": str(one)}}))
    for named in (
        ("--data.files", one, "--data.files", two),
        ("--data.files", one, two),
        (f"--data.files={one}", f"--data.files+={two}"),
        ("--config", settings, f"--data.files+={two}"),
    ):
        told = workshop.run("fit", *ONE_STEP, *named)
        assert told.line("corpus").startswith("2 files, one a.txt to two.txt"), (named, told.err)
    output = tmp_path / "tokenizer.json"
    assert run("tokenizer", "--files", one, two, "--files", three, "--output", output).status == 0
    assert "three" in output.read_text()


# -- a text named in several places ---------------------------------------------------------------


def parsed(**given: Any) -> Namespace:
    options = {name: default for of in OPTIONS_OF.values() for name, default in of.items()}
    return Namespace({"files": None, "hub": None, "source": None} | options | given)


def settings(folder: Path, name: str, **data: Any) -> str:
    (folder / name).write_text(json.dumps({"data": data}))
    return str(folder / name)


def test_the_command_line_comes_before_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stories = settings(tmp_path, "stories.yaml", hub="a/b", hub_config="c")
    for flag in ("--data.files=t.txt", "--data.files+=t.txt", "--data.files"):
        data = parsed(files="t.txt", hub="a/b", hub_config="c")
        prefer_later_text(["--config", stories, flag, "t.txt"], data)
        assert data == parsed(files="t.txt")
        told = capsys.readouterr().out
        assert told.count("\n") == 1
        assert f"--data.files t.txt is used instead of --data.hub a/b of {stories}" in told
    data = parsed(hub="a/b", source=Namespace(class_path="poems.Poems"))
    prefer_later_text(["--data.source", "poems.Poems", f"--config={stories}"], data)
    assert data.hub is None and "--data.source poems.Poems is used" in capsys.readouterr().out


def test_of_two_files_of_settings_the_later_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = settings(tmp_path, "mine.yaml", files=["a", "b"])
    stories = settings(tmp_path, "stories.yaml", hub="a/b")
    model = settings(tmp_path, "model.yaml")
    for order, left in (((stories, mine, model), "files"), ((mine, stories, model), "hub")):
        data = parsed(files=["a", "b"], hub="a/b")
        prefer_later_text([word for file in order for word in ("--config", file)], data)
        assert [text for text in ("files", "hub") if data[text]] == [left]
        assert "is used instead of" in capsys.readouterr().out


@pytest.mark.parametrize(
    "args",
    [
        ["--data.files", "t.txt", "--data.hub", "a/b"],
        ["--config", "both.yaml"],
    ],
)
def test_two_in_one_place_are_refused(
    tmp_path: Path, args: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings(tmp_path, "both.yaml", files="t.txt", hub="a/b")
    told = run("fit", *args, "--trainer.accelerator", "cpu", *ONE_STEP)
    assert "give only one of --data.files t.txt and --data.hub a/b" in told.error_line()


def test_the_shipped_stories_with_a_file(workshop: Workshop) -> None:
    """With an interval of 1,000 steps, for a text of a few."""
    stories = ROOT / "configs" / "tinystories.yaml"
    small = ("--data.num_workers", "0", "--data.widths", "null", "--trainer.max_steps", "1")
    told = run("fit", "--config", stories, *TINY, *workshop.where, *small)
    assert told.status == 0, told.err
    assert "used instead of --data.hub roneneldan/TinyStories" in told.line("note")
    assert "--trainer.val_check_interval 1000 is longer than an epoch of" in told.out


# -- options without effect ------------------------------------------------------------------------

GIVEN = {
    "data.files": "t.txt",
    "data.hub": None,
    "data.hub_config": None,
    "data.hub_split": "train",
    "data.hub_revision": None,
    "data.hub_streaming": None,
    "data.tokenizer": "bpe",
    "data.vocab_size": None,
    "data.max_length": 64,
    "data.widths": None,
    "data.layout": "padded",
    "data.tokens_per_batch": 256,
    "data.rows_per_batch": None,
    "data.quick_eval_tokens": None,
    "trainer.limit_val_batches": None,
}


@pytest.mark.parametrize(
    ("options", "noted"),
    [
        ({}, False),
        ({"data.hub_config": "small"}, True),
        ({"data.hub_config": "small", "data.files": None, "data.hub": "a/b"}, False),
        ({"data.vocab_size": 400}, False),
        ({"data.vocab_size": 400, "data.tokenizer": "characters"}, True),
        ({"data.vocab_size": 400, "data.tokenizer": "mine.json"}, True),
        ({"data.rows_per_batch": 31}, False),
        ({"data.rows_per_batch": 32}, True),
        ({"data.rows_per_batch": 4, "data.layout": "packed"}, True),
        ({"data.rows_per_batch": 3, "data.layout": "packed"}, False),
        ({"data.rows_per_batch": 8, "data.widths": [32, 64]}, True),
        ({"data.quick_eval_tokens": 100}, False),
        ({"data.quick_eval_tokens": 100, "trainer.limit_val_batches": 0}, True),
    ],
)
def test_an_option_without_effect_is_noted_once(
    capsys: pytest.CaptureFixture[str],
    options: dict[str, Any],
    noted: bool,
) -> None:
    note_without_effect(DATA, GIVEN | options, GIVEN.__getitem__)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == noted
    if noted:
        name, value = next(iter(options.items()))
        assert lines[0].startswith(f"note     --{name} {value} has no effect: ")


def test_it_is_noted_of_a_run(workshop: Workshop) -> None:
    told = workshop.fit("run", "--data.hub_config", "small", "--trainer.max_steps", "1")
    assert "--data.hub_config small has no effect" in told.line("note")


def test_of_the_tokenizer_command_too(corpus: str, tmp_path: Path) -> None:
    own, next_one = tmp_path / "own.json", tmp_path / "next.json"
    told = run("tokenizer", "--files", corpus, "--characters", "--vocab_size", "300",
               "--output", own)  # fmt: skip
    assert told.line("note").startswith("--vocab_size 300 has no effect: --characters")
    told = run("tokenizer", "--show", own, "--files", corpus, "--output", next_one)
    notes = [line for line in told.out.splitlines() if line.startswith("note")]
    assert ["--files" in notes[0], "--output" in notes[1], len(notes)] == [True, True, 2]
    assert not next_one.exists()
    (tmp_path / "file").write_text("mine")
    told = run("tokenizer", "--files", corpus, "--output", tmp_path / "file" / "it.json")
    assert "is a file; give another folder with --output" in told.error_line()


# -- intervals longer than the text ----------------------------------------------------------------


def test_intervals_end_with_the_epoch(workshop: Workshop) -> None:
    plain = workshop.fit("plain", "--trainer.max_epochs", "2")
    accumulating = ("--trainer.accumulate_grad_batches", "2")
    for name, *options in (
        ("interval", "--trainer.val_check_interval", "5000"),
        ("several", "--trainer.val_check_interval", "5000", *accumulating),
        ("limit", "--trainer.limit_train_batches", "5000"),
    ):
        told = workshop.fit(name, "--trainer.max_epochs", "2", *options)
        assert f"{options[0]} 5000 is" in told.line("note")
        assert told.line("finished").split()[0] == plain.line("finished").split()[0]
        assert told.out.count("validation at step") == plain.out.count("validation at step") == 2
    across = ("--trainer.check_val_every_n_epoch", "null", "--trainer.val_check_interval", "5000")
    told = workshop.fit("across", "--trainer.max_epochs", "2", *across)
    assert "longer than" not in told.out and told.out.count("validation at step") == 1
