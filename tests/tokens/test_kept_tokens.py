"""A run goes on with the tokens it began with when its text has grown, changed or gone."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from workshop import Outcome, Workshop, assert_same_weights, run

from lightning_embed.sources.files import FilesCorpus
from lightning_embed.sources.hub import HubCorpus

LAST = ("--ckpt_path", "last")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Runs on one text, `run` of 4 steps and `whole` of 8."""
    folder = tmp_path_factory.mktemp("kept") / "here"
    folder.mkdir()
    notes = folder / "notes.txt"
    notes.write_text("".join(f"note {n} of {n * n}\n" for n in range(400)))
    shop = Workshop(str(notes), folder / "cache", folder / "runs")
    shop.fit("whole", "--model.schedule", "constant", steps=8)
    shop.fit("run", "--model.schedule", "constant", steps=4)
    shutil.copytree(folder, folder.with_name("as it was"))
    return shop


@pytest.fixture
def shop(runs: Workshop) -> Workshop:
    """Those, as they were: a text goes by its place, so that a copy elsewhere would be another."""
    folder = runs.root.parent
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("as it was"), folder)
    return runs


def goes_on(shop: Workshop, *more: str | Path) -> Outcome:
    constant = ("--model.schedule", "constant", "--trainer.max_steps", "8")
    return shop.run("fit", "--name", "run", *constant, *LAST, *more)


def grown(notes: Path) -> None:
    notes.write_text(notes.read_text() + "one more\n")


def shorter(notes: Path) -> None:
    notes.write_text(notes.read_text()[:-50])


@pytest.mark.parametrize(
    ("change", "said"),
    [(grown, "has changed"), (shorter, "has changed"), (Path.unlink, "is gone")],
)
def test_it_goes_on_and_says_so(shop: Workshop, change: Callable[[Path], None], said: str) -> None:
    change(Path(shop.files))
    folders = sorted(shop.cache.iterdir())
    told = goes_on(shop)
    assert told.status == 0, told.err
    assert told.out.count("tokens of before") == 1
    assert told.line("note").startswith(f"--data.files {shop.files} {said}; its tokens of before")
    assert_same_weights(shop.checkpoint("run"), shop.checkpoint("whole"))
    assert sorted(shop.cache.iterdir()) == folders  # nothing was prepared anew
    for command in ("validate", "test", "predict"):
        told = shop.run(command, "--ckpt_path", shop.checkpoint("run"))
        assert told.status == 0 and f"{said}; its tokens of before" in told.line("note"), command


def test_an_unchanged_text_needs_no_note(shop: Workshop) -> None:
    assert "tokens of before" not in goes_on(shop).out


def test_another_text_is_not_the_one_it_began_with(shop: Workshop, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("another text altogether\n" * 50)
    told = goes_on(shop, f"--data.files={other}")
    assert "was trained on data" in told.error_line()


def test_without_the_tokens_it_is_refused(shop: Workshop) -> None:
    grown(Path(shop.files))
    (kept,) = shop.cache.iterdir()
    (kept / "train" / "tokens.bin").write_bytes(b"damaged")
    told = goes_on(shop)
    assert "train/tokens.bin has 7 bytes" in told.line("warning")
    assert "was trained on data" in told.error_line()
    shutil.rmtree(shop.cache)
    assert "was trained on data" in goes_on(shop).error_line()
    Path(shop.files).unlink()
    assert f"{shop.files}': no such file" in goes_on(shop).error_line()


def test_a_tokenizer_that_is_gone(tmp_path: Path, corpus: str) -> None:
    own = tmp_path / "own.json"
    assert run("tokenizer", "--files", corpus, "--characters", "--output", own).status == 0
    shop = Workshop(corpus, tmp_path / "cache", tmp_path / "runs")
    given = ("--data.tokenizer", str(own), "--data.vocab_size", "null")
    shop.fit("run", *given, "--model.schedule", "constant", steps=4)
    own.unlink()
    told = goes_on(shop, *given)
    assert told.status == 0, told.err
    assert f"or --data.tokenizer {own} is gone; its tokens of before" in told.line("note")


def test_a_text_is_named_by_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert FilesCorpus(("a.txt",)).name_of_text == FilesCorpus((f"{tmp_path}/a.txt",)).name_of_text
    names = {
        FilesCorpus(("a.txt",)).name_of_text,
        FilesCorpus(("a.txt",), "body").name_of_text,
        FilesCorpus(("a.txt", "b.txt")).name_of_text,
        HubCorpus("a").name_of_text,
        HubCorpus("a", "small").name_of_text,
        HubCorpus("a", text_column="body").name_of_text,
    }
    assert len(names) == 6
