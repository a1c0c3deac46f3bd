"""The `tokenizer` command: trained, shown, used by `fit`."""

import json
from pathlib import Path

import tokenizer_kinds
from workshop import Workshop, run

from lightning_embed.tokens.tokenizer import PORTABLE


def test_a_tokenizer_is_trained_shown_and_used(workshop: Workshop, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    made = run(
        *("tokenizer", "--files", workshop.files, "--vocab_size", "300", "--output", path),
        *("--text", "abc <pad>"),
    )
    assert made.status == 0, made.err
    assert "<pad>=1" in made.line("ids")
    assert run("tokenizer", "--show", path).line("ids") == made.line("ids")
    again = run("tokenizer", "--files", workshop.files, "--output", path)
    assert "exists already" in again.error_line()
    told = workshop.fit("run", "--data.tokenizer", path, "--data.vocab_size", "null", steps=2)
    assert "vocabulary 300" in told.line("tokens")


def test_a_portable_one_is_the_same_for_both_commands(workshop: Workshop, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    options = ("--files", workshop.files, "--vocab_size", "300", "--output", path)
    assert run("tokenizer", *options, "--portable", "true").status == 0
    cuts = json.loads(path.read_text(encoding="utf-8"))["pre_tokenizer"]["pretokenizers"]
    assert [cut["pattern"]["Regex"] for cut in cuts[:-1]] == list(PORTABLE)
    told = workshop.fit(
        *("run", "--data.tokenizer", "bpe-portable", "--data.vocab_size", "300"), steps=1
    )
    assert told.status == 0, told.err
    kept = [file.read_text(encoding="utf-8") for file in workshop.cache.glob("*/tokenizer.json")]
    assert path.read_text(encoding="utf-8") in kept
    characters = run(
        "tokenizer",
        *options[:-1],
        tmp_path / "c.json",
        "--characters",
        "true",
        "--portable",
        "true",
    )
    assert "--portable True has no effect" in characters.out + characters.err


def test_a_tokenizer_that_loses_text_says_so_at_every_figure(
    workshop: Workshop, tmp_path: Path
) -> None:
    """Adopted, with what it loses; then trained with, evaluated, compared and exported."""
    tokenizer_kinds.bert().save(str(tmp_path / "bert.json"))
    refused = run("tokenizer", "--show", tmp_path / "bert.json").error_line()
    assert refused.endswith(f"--adopt {tmp_path / 'bert.json'}")
    made = run("tokenizer", "--adopt", tmp_path / "bert.json", "--output", tmp_path / "mine.json")
    assert "line ends" in made.line("note     text does not come back whole from its tokens")
    options = ("--data.tokenizer", tmp_path / "mine.json", "--data.vocab_size", "null")
    told = workshop.fit("lossy", *options, steps=2)
    assert told.status == 0, told.err
    assert "line ends" in told.line("the tokenizer does not give back")
    assert "without what the tokenizer loses" in told.line("bits per byte")
    assert "compare them with this tokenizer's only" in told.out and "xz -9e" not in told.out
    tested = workshop.run("test", "--name", "lossy", "--json", "true")
    assert json.loads(tested.out)["tokenizer_keeps_text"] is False
    folder = workshop.root / "lossy"
    assert json.loads((folder / "run.json").read_text(encoding="utf-8"))["lossy"] is True
    predicted = workshop.run("predict", "--name", "lossy")
    assert "without what the tokenizer loses" in predicted.line("note     bits per byte")
    page = tmp_path / "page.html"
    table = run("runs", folder, "--html", page).out
    assert '<span title="* the tokenizer loses text' in page.read_text(encoding="utf-8")
    assert "*" in table and "* the tokenizer loses text" in table
    assert run("export", "--checkpoint", folder, "--output", tmp_path / "hf").status == 0
    assert "The tokenizer does not keep all of a text" in (tmp_path / "hf/README.md").read_text()
