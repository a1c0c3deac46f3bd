"""What of files is held out, by name, by size or as given; and what stays when files are added."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import Corpus, read_all

from lightning_embed.errors import UserError
from lightning_embed.sources.corpus import choose_source, to_score
from lightning_embed.sources.files import FilesCorpus
from lightning_embed.sources.held_out import SplitRule, is_held_out, stable_names

BY_NAME = SplitRule("name", 0.3)


def fill(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"the text of {path.name} is its own\n" * 3, encoding="utf-8")


def read(*patterns: Path, **options: Any) -> Corpus:
    return read_all(FilesCorpus(tuple(map(str, patterns)), **options))


def sides(corpus: Corpus) -> dict[str, str]:
    """Each text's side."""
    found = dict.fromkeys(corpus.train, "train")
    return found | dict.fromkeys(corpus.validation, "validation")


def test_names_beyond_any_folder_are_stable(tmp_path: Path) -> None:
    """Files added in the folder, beyond it, and before it leave all others where they were."""
    fill(tmp_path, *(f"a/{n}.txt" for n in range(15)))
    before = sides(read(tmp_path / "a", split=BY_NAME))
    assert set(before.values()) == {"train", "validation"}
    fill(tmp_path, *(f"a/more/{n}.txt" for n in range(20, 30)), *(f"b/{n}.md" for n in range(9)))
    for patterns in ((tmp_path / "a",), (tmp_path / "a", tmp_path / "b")):
        after = sides(read(*patterns, split=BY_NAME))
        assert len(after) > len(before) and before.items() <= after.items()
    # without the rule the 20th file changes it for all
    few = sides(read(tmp_path / "b"))
    assert few.items() - sides(read(tmp_path)).items()


def test_how_files_are_named_does_not_matter(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.txt", "a/b/2.txt", "c/3.txt")
    paths = [tmp_path / name for name in ("a/1.txt", "a/b/2.txt", "c/3.txt")]
    folder, glob = str(tmp_path / "a"), str(tmp_path / "a" / "**" / "*.txt")
    for pattern in (folder, glob):
        assert stable_names([pattern], paths)[:2] == ["1.txt", "b/2.txt"]
    named = [str(tmp_path / "c" / "3.txt"), *map(str, paths)]
    assert stable_names(named, paths) == ["1.txt", "2.txt", "3.txt"]


@given(st.text(), st.floats(0.001, 0.999), st.floats(0.001, 0.999))
def test_a_larger_share_holds_out_the_same_and_more(name: str, one: float, two: float) -> None:
    less, more = sorted([one, two])
    assert is_held_out(name, more) >= is_held_out(name, less)


@pytest.mark.parametrize("share", [0.03, 0.25])
def test_the_rate_of_names_is_the_share(share: float) -> None:
    found = sum(is_held_out(f"{n}.txt", share) for n in range(20_000)) / 20_000
    assert found == pytest.approx(share, abs=0.01)


def test_a_share_of_the_text_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * 1000)
    corpus = read(tmp_path / "a.txt", split=SplitRule("auto", 0.03))
    assert (len(corpus.train[0]), len(corpus.validation[0])) == (970, 30)
    assert "held out: the last 3 % of the text" in corpus.notes
    fill(tmp_path, *(f"{n}.txt" for n in range(30)))
    corpus = read(tmp_path, split=SplitRule("end", 0.5))
    assert "held out: the last 50 % of the text" in corpus.notes


def test_a_name_rule_that_holds_out_nothing_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt", "b.txt")
    with pytest.raises(UserError, match=r"--data\.split name holds out 0 of 2 files at .* 0\.01"):
        read(tmp_path, split=SplitRule("name", 0.01))


def test_files_given_for_validation(tmp_path: Path) -> None:
    """All else trains; not files named twice and copies of held-out documents, which is said."""
    fill(tmp_path, "train/1.txt", "train/2.txt", "train/kept.txt", "other/held.txt")
    (tmp_path / "train" / "copy.md").write_bytes((tmp_path / "other" / "held.txt").read_bytes())
    given = (str(tmp_path / "other"), str(tmp_path / "train" / "kept.txt"))
    corpus = read(tmp_path / "train", validation=given)
    assert corpus.train_sources == ["train/1.txt", "train/2.txt"]
    assert corpus.validation_sources == ["other/held.txt", "train/kept.txt"]
    assert corpus.counts["copies of held-out documents"] == 1
    held_out = "held out: 2 files of --data.validation; 1 of them stand in --data.files too and"
    assert any(note.startswith(held_out) for note in corpus.notes)
    assert "set aside: 1 copies of held-out documents" in corpus.notes
    with pytest.raises(UserError, match=r"--data\.validation names all files of"):
        read(tmp_path / "train" / "kept.txt", validation=given)


def test_each_rule_has_a_fingerprint_and_the_usual_one_its_old(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.txt", "a/2.txt", "b/3.txt")
    files = (str(tmp_path / "a"),)
    given = (str(tmp_path / "b"),)
    found = {
        FilesCorpus(files).fingerprint,
        FilesCorpus(files, split=SplitRule("end")).fingerprint,
        FilesCorpus(files, split=SplitRule("end", 0.2)).fingerprint,
        FilesCorpus(files, split=SplitRule("name")).fingerprint,
        FilesCorpus(files, validation=given).fingerprint,
        FilesCorpus((*files, *given)).fingerprint,
    }
    assert len(found) == 6
    assert FilesCorpus(files, split=SplitRule()).fingerprint in found
    assert to_score(FilesCorpus(files, validation=given)) == FilesCorpus(files, whole=True)


def test_what_does_not_go_together_is_refused() -> None:
    for options, why in (
        ({"files": "a", "validation": "b", "split": "end"}, "leave out --data.split"),
        ({"hub": "a", "validation": "b"}, "--data.validation b is for files"),
        ({"hub": "a", "validation_share": 0.2}, "--data.validation_share 0.2 is for files"),
        ({"files": "a", "validation_share": 1.0}, "--data.validation_share must be above 0 and"),
    ):
        with pytest.raises(UserError, match=why.replace(".", r"\.")):
            choose_source(**options)  # type: ignore[arg-type]
