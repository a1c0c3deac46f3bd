"""The `tokenizer` command: trained, shown, used by `fit`."""

from pathlib import Path

from workshop import Workshop, run


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
