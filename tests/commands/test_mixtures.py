"""Runs on several named sources: the example of the docs, what is shown, resumed and refused."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from workshop import (
    ROOT,
    Outcome,
    Workshop,
    assert_same_weights,
    load,
    run,
    run_apart,
    write_corpus,
)

from lightning_embed.commands.source_options import merged, part
from lightning_embed.figures import pages

EPOCH = ("--trainer.max_epochs", "1")
LAST = ("--ckpt_path", "last")
BARE = (  # what these tests do not look at
    *("--pages.pictures", "false", "--pages.projector", "never", "--pages.histograms", "false"),
    *("--samples.max_new_tokens", "0", "--trainer.limit_val_batches", "0"),
)
SIGNAL = "--trainer.callbacks"
STOP = (f"{SIGNAL}+=workshop.SignalAt", f"{SIGNAL}.step=7", f"{SIGNAL}.signal_name=SIGTERM")


def example() -> str:
    """The settings that the docs show."""
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    (found,) = re.findall(r"```yaml\n(data:\n  sources:.*?)```", text, re.DOTALL)
    return str(found)


@pytest.fixture(scope="module")
def made(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workshop, Path, Outcome]:
    """A run called `mixed` of the docs' example, with its settings; to look at."""
    folder = tmp_path_factory.mktemp("mixed")
    write_corpus(folder / "books", 40, seed=1)
    write_corpus(folder / "src", 5, seed=2)
    settings = folder / "mix.yaml"
    here = example().replace("books/", f"{folder}/books").replace("src/", f"{folder}/src")
    settings.write_text(here)
    shop = Workshop("null", cache, folder / "runs")
    return shop, settings, shop.fit("mixed", "--config", settings, *EPOCH)


Made = tuple[Workshop, Path, Outcome]


def test_the_mixture_is_shown(made: Made) -> None:
    told = made[2]
    lines = told.out.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("mixture"))
    rows = [line.split() for line in lines[at + 1 : at + 3]]
    assert [row[0] for row in rows] == ["books", "code"]
    assert [row[-5] for row in rows] == ["70.0", "30.0"]
    share, passes = float(rows[1][-3]), float(rows[1][-1])
    assert rows[0][-1] == "1.00" and 1 < passes < 4 and share == pytest.approx(30, abs=1)
    at = next(n for n, line in enumerate(lines) if line.startswith("by source"))
    by_name = {line.split()[0]: float(line.split()[1]) for line in lines[at + 1 : at + 3]}
    whole = float(told.line("held out validation loss").split()[0])
    assert by_name.keys() == {"books", "code"}
    assert min(by_name.values()) < whole < max(by_name.values())
    assert "books: held out: 4 of 40 files, by name" in told.out


def test_tensorboard_has_each_source_on_a_page(made: Made) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shop, _, told = made
    events = EventAccumulator(str(shop.root / "mixed")).Reload()
    tags = set(events.Tags()["scalars"])
    arranged = {tag for chart in pages(["books", "code"])["Sources"].values() for tag in chart}
    assert arranged == {tag for tag in tags if tag.startswith("sources/") and "held" not in tag}
    last = events.Scalars("sources/held_out_loss_books")[-1].value
    assert f"{last:.4f}" in told.out


def test_the_report_has_each_source(made: Made) -> None:
    shop = made[0]
    options = ("--name", "mixed", "--data.cache_dir", shop.cache)
    options = (*options, "--trainer.default_root_dir", shop.root, "--trainer.accelerator", "cpu")
    found = json.loads(run("test", "--json", *options, "--trainer.precision", "32-true").out)
    its = found["by_named_source"]["sources"]
    assert {x["source"] for x in its} == {"books", "code"}
    assert sum(x["bytes"] for x in its) == found["bytes"]
    nats = sum(x["loss"]["value"] * x["tokens"] for x in its)
    assert nats / found["tokens"] == pytest.approx(found["loss"]["value"])
    lines = run("test", *options, "--trainer.precision", "32-true")
    assert "books" in lines.out and "\nsource " in lines.out
    other = run("test", "--json", *options, "--files", shop.root.parent / "src")
    assert "by_named_source" not in json.loads(other.out)


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_a_run_goes_on_as_if_it_had_not_stopped(made: Made, tmp_path: Path, layout: str) -> None:
    shop, settings, _ = made
    one = Workshop("null", shop.cache, tmp_path / "runs")
    options = ("--config", settings, "--data.layout", layout, "--trainer.max_epochs", "2", *BARE)
    one.fit("whole", *options)
    assert one.run("fit", "--name", "parts", *options, *STOP).status == 143
    assert 0 < load(one.checkpoint("parts"))["global_step"] < 15
    one.fit("parts", *options, *LAST)
    assert_same_weights(one.checkpoint("whole"), one.checkpoint("parts"))


def test_another_mix_needs_no_new_tokens_and_no_run_goes_on_with_it(made: Made) -> None:
    shop, settings, _ = made
    prepared = {path.name for path in shop.cache.iterdir()}
    even = ("--data.mix", "{books: 1, code: 1}")
    told = shop.fit("even", "--config", settings, *even, "--data.max_passes", "2", *BARE, steps=2)
    assert {path.name for path in shop.cache.iterdir()} == prepared
    assert "note     code: too small for the share asked at 2 passes an epoch" in told.out
    copy = shop.root / "copy"
    shutil.copytree(shop.root / "mixed", copy)
    more = ("--config", settings, "--name", "copy", "--trainer.max_epochs", "2", *LAST)
    line = shop.run("fit", *more, *even).error_line()
    assert line.startswith("--data.mix is {'books': 0.5, 'code': 0.5}, but this checkpoint was")
    line = shop.run("fit", *more, "--data.mix", "null").error_line()
    assert line.startswith("--data.mix is not given, but this checkpoint was trained")
    line = shop.run("fit", *more, "--data.max_passes", "3").error_line()
    assert line.startswith("--data.max_passes is 3.0, but this checkpoint was trained with 4.0")


def test_named_sources_on_the_command_line(made: Made) -> None:
    """Without a mix they are taken as they are, and their shares are shown; files come before."""
    shop, settings, _ = made
    folder = shop.root.parent
    books = (f"--data.sources.books.files={folder}/books", "--data.sources.books.document", "line")
    code = ("--data.sources.code.files", folder / "src", "--data.sources.code.validation_share=0.2")
    told = shop.fit("typed", *books, *code, *BARE, steps=1)
    saved = yaml.safe_load((shop.root / "typed" / "config.yaml").read_text())["data"]["sources"]
    assert saved["books"] == {"files": f"{folder}/books", "document": "line"}
    assert saved["code"] == {"files": f"{folder}/src", "validation_share": 0.2}
    assert "code: held out: the last 20 % of the text" in told.out
    assert re.search(r"books .* -  +\d+\.\d %  1\.00", told.out)
    told = shop.run("fit", "--config", settings, "--data.files", folder / "src", *EPOCH, *BARE)
    used = f"--data.files {folder}/src is used instead of --data.sources books, code of {settings}"
    assert told.line("note") == used
    assert "mixture" not in told.out and told.status == 0, told.err


@pytest.mark.parametrize(
    ("given", "rest", "typed"),
    [
        ("--x 1 --data.sources.a.files b --y", "--x 1 --y", {"a": {"files": "b"}}),
        ("--data.sources.a.files b c --y 2", "--y 2", {"a": {"files": ["b", "c"]}}),
        ("--data.sources.a.files=b --data.sources.a.files=c", "", {"a": {"files": ["b", "c"]}}),
        ("--data.sources.a.validation_share 0.2", "", {"a": {"validation_share": 0.2}}),
        ("--data.sources.a={files: b}", "--data.sources.a={files: b}".replace(" ", "|"), {}),
        ("--data.sources.a.files", "", {"a": {"files": None}}),
    ],
)
def test_options_of_sources_are_parted(given: str, rest: str, typed: Any) -> None:
    words = given.split() if "{" not in given else [given]
    assert part(words) == ([word.replace("|", " ") for word in rest.split()], typed)


def test_options_change_those_of_settings() -> None:
    settings = {"a": {"files": "x", "split": "end"}, "b": {"hub": "y"}}
    found = merged(settings, {"a": {"split": "name"}, "c": {"files": "z"}})
    assert found == {"a": {"files": "x", "split": "name"}, "b": {"hub": "y"}, "c": {"files": "z"}}
    assert merged(None, {}) is None


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("--data.mix.bokos=1", "--data.mix names bokos, which is not in --data.sources (did you"),
        ("--data.sources.books.document=lin", "--data.sources.books.document cannot be 'lin'"),
        ("--data.text_column=body", "--data.text_column body is of one text: give it within"),
        ("--data.max_passes=0.5", "--data.max_passes must be at least 1"),
        ("--data.mix=3", "--data.mix cannot be 3"),
    ],
)
def test_mistakes_in_one_line(made: Made, given: str, line: str) -> None:
    shop, settings, _ = made
    assert shop.run("fit", "--config", settings, given, *EPOCH).error_line().startswith(line)


@pytest.mark.slow
def test_one_process_begins_and_two_go_on(made: Made, tmp_path: Path) -> None:
    shop, settings, _ = made
    one = Workshop("null", shop.cache, tmp_path / "runs")
    adamw = ("--config", settings, "--model.optimizer", "adamw", "--trainer.max_epochs", "2")
    one.fit("alone", *adamw)
    assert one.run("fit", "--name", "parts", *adamw, *STOP).status == 143
    ddp = ("--trainer.strategy", "ddp", "--trainer.devices", "2")
    told = run_apart(*one.arguments("fit", "--name", "parts", *adamw, *LAST, *ddp))
    assert told.status == 0, told.out + told.err
    alone, parts = load(one.checkpoint("alone")), load(one.checkpoint("parts"))
    assert alone["global_step"] == parts["global_step"] > 7
    for key, value in alone["state_dict"].items():
        torch.testing.assert_close(parts["state_dict"][key], value, atol=1e-4, rtol=1e-4, msg=key)
    assert math.isfinite(float(told.line("held out validation loss").split()[0]))
