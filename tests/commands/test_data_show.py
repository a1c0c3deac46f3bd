"""`data show` as a user has it: what a run would see, without a run."""

import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import yaml
from workshop import Outcome, Workshop, run, write_corpus

from lightning_embed import console
from lightning_embed.console import cells
from lightning_embed.data import near_copies
from lightning_embed.data.datamodule import TextDataModule
from lightning_embed.watching.mixture_table import say_mixture

SIZE = ("--data.max_length", "32", "--data.tokens_per_batch", "256", "--data.vocab_size", "400")


@pytest.fixture
def no_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a trainer was started")

    monkeypatch.setattr(L.Trainer, "__init__", fail)


def show(workshop: Workshop, *more: str | Path) -> Outcome:
    where = ("--data.files", workshop.files, "--data.cache_dir", workshop.cache)
    return run("data", "show", *where, *SIZE, *more)


def test_a_person_sees_what_a_run_will_see(workshop: Workshop, no_trainer: None) -> None:
    found = show(workshop)
    assert found.status == 0, found.err
    labels = [line[:9].strip() for line in found.out.splitlines() if line[:1].strip()]
    told = ["corpus", "tokens", "ids", "lengths", "padding", "copies"]
    assert labels == [*told, "document", "document", "batch"]
    assert "30 documents" in found.line("corpus")
    assert found.line("token  ").startswith("<s>") and found.line("id   ").startswith("0 ")
    assert "padded, as set:" in found.line("padding") and found.line("packed:")
    assert found.line("batch").startswith("of step 1:")
    assert not workshop.runs()


@pytest.mark.parametrize("width", [40, 80])
def test_lines_fit_the_terminal(
    workshop: Workshop, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "PLAIN", width)
    found = show(workshop, "--data.layout", "packed", "--documents", "3")
    assert found.status == 0
    for line in found.out.splitlines():
        single = len(line.split()) == 1  # a word is never cut
        assert cells(line) <= width or single, line


def test_json_is_one_object_in_one_line(workshop: Workshop, no_trainer: None) -> None:
    found = show(workshop, "--json", "--documents", "1", "--data.decontaminate")
    assert found.status == 0 and found.out.count("\n") == 1
    facts = json.loads(found.out)
    assert facts["settings"]["decontaminate"] is True and len(facts["documents"]) == 1
    assert "note" in found.err  # lines for a person stand elsewhere
    assert facts["splits"]["train"]["documents"] == sum(facts["lengths"]["counts"])
    assert facts["counts"]["documents"] == 30
    assert [x["layout"] for x in facts["paddings"]] == ["padded", "packed"]


def test_documents_and_batches_can_be_chosen(workshop: Workshop) -> None:
    def facts(*more: str) -> Any:
        return json.loads(show(workshop, "--json", *more).out)

    first = facts()
    assert [x["number"] for x in first["documents"]] == [0, 1]
    drawn = [tuple(x["number"] for x in facts("--draw", seed)["documents"]) for seed in "123"]
    assert len(set(drawn)) > 1
    assert facts("--documents", "0")["documents"] == []
    later = facts("--step", "2")["batch"]
    assert later["step"] == 2 and later["ids"] != first["batch"]["ids"]
    assert facts("--seed_everything", "1")["batch"]["ids"] != first["batch"]["ids"]


def test_a_step_is_the_one_that_trains(workshop: Workshop) -> None:
    """Its windows are of the documents that a run names at that step, in a later epoch too."""
    data = TextDataModule(
        files=workshop.files,
        vocab_size=400,
        max_length=32,
        tokens_per_batch=256,
        cache_dir=str(workshop.cache),
    )
    step = data.batches_per_epoch + 3
    facts = json.loads(show(workshop, "--json", "--step", str(step)).out)
    assert facts["key"] == data.prepared.key and facts["settings"] == data.plan_settings
    found = facts["batch"]
    named = {name.partition(" (")[0] for name in data.documents_of_step(step)}
    assert set(found["sources"]) == named


def test_of_a_settings_file_the_data_count(workshop: Workshop, tmp_path: Path) -> None:
    settings = tmp_path / "mine.yaml"
    settings.write_text(
        "seed_everything: 7\nmodel:\n  d_model: 32\ndata:\n  max_length: 16\n  layout: packed\n"
        "trainer:\n  max_steps: 3\n"
    )
    where = ("--data.files", workshop.files, "--data.cache_dir", workshop.cache)
    small = ("--data.vocab_size", "400", "--data.tokens_per_batch", "64", "--json")
    for given in (("--config", settings), (f"--config={settings}",), ("-c", settings)):
        found = run("data", "show", *given, *where, *small)
        asked = json.loads(found.out)["settings"]
        assert (asked["max_length"], asked["layout"], asked["seed"]) == (16, "packed", 7)
    named = run("data", "show", "--config", "shakespeare_char", *where, *small)
    assert json.loads(named.out)["settings"]["max_length"] == 64
    assert "is used instead of" in named.err or not named.err


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--documents", "-1"), "--documents must be at least 0, not -1"),
        (("--step", "0"), "--step must be at least 1, not 0"),
        (("--draw", "-1"), "--draw must be at least 0, not -1"),
        (("--data.max_length", "1"), "max_length must be at least 2"),
        (("--data.filse", "x"), "did you mean data.files?"),
        (("--config", "nowhere"), "no such file"),
        (("--data.layout", "loose"), "loose"),
        (("--model.d_model", "3"), "unrecognized arguments: --model.d_model 3"),
    ],
)
def test_mistakes_are_told_in_one_line(
    workshop: Workshop, given: tuple[str, ...], told: str
) -> None:
    assert told in show(workshop, *given).error_line()


def test_near_copies_are_named_and_left_out(workshop: Workshop, tmp_path: Path) -> None:
    words = [f"w{number * 7919 % 1000}" for number in range(400)]
    lines = [" ".join(words[at * 20 : at * 20 + 80]) for at in range(16)]
    lines += [f"{lines[4]} and a bit", "<pad> and </s> stand \u202e here"]
    text = tmp_path / "lines.jsonl"
    text.write_text("".join(json.dumps({"text": line}) + "\n" for line in [*lines, "", lines[0]]))
    where = ("--data.files", text, "--data.cache_dir", workshop.cache, *SIZE)
    plain = run("data", "show", *where)
    assert "1 exact copies; 1 empty documents" in plain.out
    assert "1 held-out documents" in plain.line("copies")
    assert "lines.jsonl (held out, document 1)  lines.jsonl (document 4)" in plain.line("95 %")
    fixed = json.loads(run("data", "show", *where, "--data.decontaminate", "--json").out)
    assert fixed["left_out"] >= 1 == fixed["copies"]["held_out"]
    assert fixed["key"] == json.loads(run("data", "show", *where, "--json").out)["key"]
    assert (workshop.cache / fixed["key"] / near_copies.FILE).is_file()


@pytest.fixture
def mix(tmp_path: Path) -> Path:
    """Settings of two sources of which one is seen more than once an epoch."""
    write_corpus(tmp_path / "books", 30, seed=1)
    write_corpus(tmp_path / "src", 5, seed=2)
    found = tmp_path / "mix.yaml"
    found.write_text(
        f"data:\n  sources:\n    books: {{files: {tmp_path}/books}}\n"
        f"    code: {{files: {tmp_path}/src}}\n  mix: {{books: 0.7, code: 0.3}}\n"
    )
    return found


def test_options_of_sources_are_those_of_fit(workshop: Workshop, mix: Path) -> None:
    small = ("--data.cache_dir", workshop.cache, *SIZE, "--json")
    share = ("--data.sources.code.validation_share", "0.3")
    found = json.loads(run("data", "show", "--config", mix, *share, *small).out)
    assert "code: held out: the last 30 % of the text" in found["notes"]
    typed = ("--data.sources.books.files", mix.parent / "books", "--data.sources.books.split=end")
    found = json.loads(run("data", "show", *typed, *small).out)
    assert found["notes"] == ["books: held out: the last 10 % of the text"]


def test_a_mixture_is_shown_as_a_run_shows_it(
    workshop: Workshop, mix: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--config", mix, "--data.cache_dir", workshop.cache)
    found = json.loads(run("data", "show", *where, *SIZE, "--json").out)
    books, code = found["mixture"]
    assert [(x["name"], x["asked"]) for x in (books, code)] == [("books", 0.7), ("code", 0.3)]
    assert min(books["passes"], code["passes"]) == 1 < max(books["passes"], code["passes"])
    assert code["had"] == pytest.approx(0.3, abs=0.02)
    data = TextDataModule(
        **yaml.safe_load(mix.read_text())["data"],
        **{"vocab_size": 400, "max_length": 32, "tokens_per_batch": 256},
        cache_dir=str(workshop.cache),
    )
    assert found["paddings"][0]["batches"] == data.batches_per_epoch
    capsys.readouterr()
    say_mixture(data)  # as fit does
    table = capsys.readouterr().out
    assert table.count("\n") == 3 and table in run("data", "show", *where, *SIZE).out
    unmixed = json.loads(run("data", "show", *where, *SIZE, "--data.mix=null", "--json").out)
    assert [each["asked"] for each in unmixed["mixture"]] == [None, None]
    assert json.loads(show(workshop, "--json").out)["mixture"] == []
