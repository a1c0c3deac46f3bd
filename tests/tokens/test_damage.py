"""Prepared folders that are damaged, disks that are full, folders that cannot be written."""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from workshop import Workshop, write_corpus

from lightning_embed import atomic
from lightning_embed.errors import UserError, writing
from lightning_embed.sources import opening
from lightning_embed.sources.files import FilesCorpus
from lightning_embed.tokens import checksums, prepared, split_writer
from lightning_embed.tokens.checksums import CHECKSUMS
from lightning_embed.tokens.prepared import damage, default_cache_dir, open_prepared, prepare
from lightning_embed.tokens.split_writer import SplitWriter
from lightning_embed.tokens.tokenizer import TextTokenizer
from lightning_embed.watching.summary import xz_bits_per_byte


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> FilesCorpus:
    return FilesCorpus((write_corpus(tmp_path_factory.mktemp("text"), 8),))


@pytest.fixture(scope="module")
def whole(text: FilesCorpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(text, tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A prepared folder to damage."""
    return Path(shutil.copytree(whole, tmp_path / "cache" / whole.name))


def made(text: FilesCorpus, cache: Path) -> Path:
    return prepare(text, cache, tokenizer="characters", vocab_size=None)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def gone(path: Path) -> None:
    path.unlink()


def shorter(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def other_bytes(path: Path) -> None:
    found = bytearray(path.read_bytes())
    found[len(found) // 2] ^= 1
    path.write_bytes(found)


def garbage(path: Path) -> None:
    path.write_bytes(b"\x00garbage")


def empty(path: Path) -> None:
    path.write_bytes(b"")


FILES = (
    "tokenizer.json",
    "report.json",
    *(
        f"{split}/{name}"
        for split in ("train", "validation")
        for name in ("tokens.bin", "offsets.npy", "n_bytes.npy", "source.npy", "text.bin")
    ),
)


@pytest.mark.parametrize("harm", [gone, shorter, other_bytes, garbage, empty])
@pytest.mark.parametrize("name", FILES)
def test_damage_is_named_and_made_anew(
    text: FilesCorpus,
    whole: Path,
    folder: Path,
    name: str,
    harm: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    harm(folder / name)
    assert made(text, folder.parent) == folder
    assert contents(folder) == contents(whole)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("warning") and f"({name} " in line and line.endswith("made anew")


@pytest.mark.parametrize("harm", [garbage, empty, shorter])
def test_damaged_checksums_are_damage(
    text: FilesCorpus, whole: Path, folder: Path, harm: Callable[[Path], None]
) -> None:
    harm(folder / CHECKSUMS)
    assert "does not read" in damage(folder)
    assert contents(made(text, folder.parent)) == contents(whole)


def test_a_whole_folder_is_found(
    text: FilesCorpus, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "xz.json").write_text("[1, 2]")  # added after it was made
    before = folder.stat().st_ino
    assert made(text, folder.parent) == folder and folder.stat().st_ino == before
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kept", ["garbage", "[1]", "null", '["a", 2]'])
def test_a_damaged_figure_of_xz_is_measured_again(folder: Path, kept: str) -> None:
    opened = open_prepared(folder)
    right = xz_bits_per_byte(opened)
    (folder / "xz.json").write_text(kept)
    assert xz_bits_per_byte(opened) == right is not None
    assert json.loads((folder / "xz.json").read_text()) == list(right)


@pytest.mark.parametrize("found", [True, False])
def test_preparing_sweeps_what_killed_runs_left(
    text: FilesCorpus, folder: Path, monkeypatch: pytest.MonkeyPatch, found: bool
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(atomic, "_started", lambda pid: "1")
        killed.setattr(atomic, "remove", lambda path: None)
        with atomic.work_folder(folder) as left:
            (left / "tokens.bin").write_bytes(b"half")
    if not found:
        shutil.rmtree(folder)
    made(text, folder.parent)
    left_alone = not Path("/proc/self/stat").exists()  # where this process might be its owner
    assert left.exists() == left_alone


def test_large_files_are_compared_by_size(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksums, "SUMMED_UP_TO", 10)
    other_bytes(folder / "train" / "tokens.bin")
    assert damage(folder) == ""
    shorter(folder / "train" / "tokens.bin")
    assert "tokens.bin has" in damage(folder)


# -- version 0.1 noted no checksums ----------------------------------------------------------------


def test_a_folder_of_0_1_is_found(text: FilesCorpus, folder: Path) -> None:
    gone(folder / CHECKSUMS)
    assert made(text, folder.parent) == folder
    assert not (folder / CHECKSUMS).exists()  # not made anew


def wrong_offsets(path: Path) -> None:
    np.save(path, np.load(path)[:-1])


def wrong_sources(path: Path) -> None:
    np.save(path, np.load(path) + 1000)


@pytest.mark.parametrize(
    ("name", "harm"),
    [(name, harm) for name in FILES for harm in (shorter, empty, garbage)]
    + [(name, gone) for name in FILES if "text.bin" not in name]
    + [("train/offsets.npy", wrong_offsets), ("validation/source.npy", wrong_sources)],
)
def test_a_damaged_folder_of_0_1_is_made_anew(
    text: FilesCorpus, whole: Path, folder: Path, name: str, harm: Callable[[Path], None]
) -> None:
    gone(folder / CHECKSUMS)
    harm(folder / name)
    assert damage(folder)
    assert contents(made(text, folder.parent)) == contents(whole)


# -- at once -------------------------------------------------------------------------------------


def test_another_run_removes_the_damaged_folder_first(
    text: FilesCorpus, whole: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone(folder / "report.json")
    look = prepared.damage

    def look_and_lose(path: Path) -> str:
        fault = look(path)
        shutil.rmtree(path)
        return fault

    monkeypatch.setattr(prepared, "damage", look_and_lose)
    assert contents(made(text, folder.parent)) == contents(whole)


def test_a_run_that_has_it_open_keeps_its_tokens(text: FilesCorpus, folder: Path) -> None:
    opened = open_prepared(folder)
    before = opened.train.tokens.tobytes()
    gone(folder / "train" / "source.npy")
    made(text, folder.parent)
    assert opened.train.tokens.tobytes() == before


# -- full disks and folders that cannot be written ------------------------------------------------


def full(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def half_written(*args: Any, **kwargs: Any) -> None:
    raise OSError("4000 requested and 12 written")  # what NumPy makes of it


@pytest.mark.parametrize(
    ("owner", "name", "fails"),
    [
        (SplitWriter, "write", full),
        (split_writer, "_column", half_written),
        (checksums, "note_checksums", full),
        (TextTokenizer, "save", full),
    ],
)
def test_a_full_disk_is_told_and_nothing_is_left(
    text: FilesCorpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    fails: Callable[..., None],
) -> None:
    monkeypatch.setattr(owner, name, fails)
    with pytest.raises(UserError) as told:
        made(text, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    line = str(told.value)
    assert str(tmp_path / "cache") in line and "--data.cache_dir" in line
    assert "the disk is full, about" in line and "are needed" in line and "are free" in line


def test_a_text_that_cannot_be_read_is_not_the_caches_fault(
    text: FilesCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(path: Path, mode: str) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(opening, "open", forbidden, raising=False)
    with pytest.raises(PermissionError, match=r"doc00\.txt"):
        made(text, tmp_path / "cache")


def test_a_cache_that_is_a_file(text: FilesCorpus, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(UserError, match=r"it is a file; give another folder with --data.cache_dir"):
        made(text, file)
    with pytest.raises(UserError, match=rf"{file} is a file; give another folder"):
        made(text, file / "below" / "it")
    assert file.read_text() == "mine"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EDQUOT, errno.ENAMETOOLONG])
def test_a_folder_that_cannot_be_written(tmp_path: Path, number: int) -> None:
    told = f"cannot write to {tmp_path}: .*; give another .*--flag$"
    with pytest.raises(UserError, match=told), writing(tmp_path, "--flag"):
        raise OSError(number, "reason", str(tmp_path / "below"))
    with pytest.raises(OSError, match="reason") as other, writing(tmp_path, "--flag"):
        raise OSError(errno.EIO, "reason", str(tmp_path))
    assert not isinstance(other.value, UserError)


def test_runs_that_cannot_be_written(
    corpus: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        told = Workshop(corpus, cache, root).run("fit", "--trainer.max_steps", "1").error_line()
        assert "is a file" in told and "--trainer.default_root_dir" in told
    shop = Workshop(corpus, cache, tmp_path / "runs")
    told = shop.run("fit", "--name", "n" * 300, "--trainer.max_steps", "1").error_line()
    assert "the name is too long" in told

    monkeypatch.setattr(json, "dump", full)
    told = shop.run("fit", "--name", "full", "--trainer.max_steps", "1").error_line()
    assert "the disk is full" in told and "--trainer.default_root_dir" in told
    assert not shop.root.exists()


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(UserError, match=r"--data\.cache_dir"):
        default_cache_dir()
