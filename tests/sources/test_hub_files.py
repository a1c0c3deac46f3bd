"""Data sets that come file by file: the same documents as all at once, and no file twice."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from pyarrow import parquet
from reading import read_all

from lightning_embed.errors import UserError
from lightning_embed.sources import hub, hub_files
from lightning_embed.sources.hub import HubCorpus
from lightning_embed.tokens import encoding
from lightning_embed.tokens.prepared import prepare
from lightning_embed.tokens.split_writer import SplitWriter

FILES, ROWS = 4, 60


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


def texts(number: int) -> list[str | None]:
    found: list[str | None] = [f"story {number} of row {row}, ä\n" for row in range(ROWS)]
    found[number::17] = [None] * len(found[number::17])
    found[5] = " \n"
    return found


def as_parquet(path: Path, rows: list[Any]) -> None:
    parquet.write_table(pyarrow.table({"id": range(len(rows)), "text": rows}), path, 7)


def as_lines(path: Path, rows: list[Any]) -> None:
    path.write_text("\n\n".join(json.dumps({"text": text}) for text in rows))


def as_array(path: Path, rows: list[Any]) -> None:
    path.write_text(json.dumps([{"text": text} for text in rows], indent=1))


KINDS = {".parquet": as_parquet, ".jsonl": as_lines, ".json": as_array}


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    def build(suffix: str = ".parquet", validation: bool = False) -> Path:
        folder = tmp_path / "stories"
        folder.mkdir()
        write = KINDS[suffix]
        for number in range(FILES):
            write(folder / f"train-{number:05}-of-{FILES:05}{suffix}", texts(number))
        if validation:
            write(folder / f"validation-00000-of-00001{suffix}", texts(9))
        return folder

    return build


@pytest.mark.parametrize("validation", [False, True])
@pytest.mark.parametrize("suffix", list(KINDS))
def test_the_same_documents(
    folder: Callable[..., Path], suffix: str, validation: bool, tmp_path: Path
) -> None:
    place = str(folder(suffix, validation))
    whole, by_file = HubCorpus(place), HubCorpus(place, streaming=True)
    assert whole.fingerprint == by_file.fingerprint and whole.name_of_text == by_file.name_of_text
    assert vars(read_all(whole)) == vars(read_all(by_file))
    assert len(read_all(by_file).validation) == (56 if validation else 1)


def test_what_does_not_come_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "stories").mkdir()
    (tmp_path / "stories" / "a.csv").write_text("text\none\ntwo\n")
    with pytest.raises(UserError, match=r"--data\.hub_streaming: .* cannot come file by file: csv"):
        read_all(HubCorpus(str(tmp_path / "stories"), streaming=True))


def test_a_missing_column_and_a_missing_split(folder: Callable[..., Path]) -> None:
    place = str(folder())
    with pytest.raises(
        UserError, match=r"train-00000.* no column 'body': name one of 'id', 'text'"
    ):
        read_all(HubCorpus(place, text_column="body", streaming=True))
    with pytest.raises(UserError, match="has no split 'all': it has train"):
        read_all(HubCorpus(place, train_split="all", streaming=True))


# -- from the Hub --------------------------------------------------------------------------------


COMMIT = "0123456789012345678901234567890123456789"


class Hub:
    """A folder that is had as if it were on the Hub."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.fetched = folder, list[str]()
        self.asked = list[str | None]()
        self.builder = datasets.load_dataset_builder(str(folder))
        for split, files in self.builder.config.data_files.items():
            urls = [f"hf://datasets/a/b@{COMMIT}/{Path(file).name}" for file in files]
            self.builder.config.data_files[split] = urls
        monkeypatch.setattr(datasets, "load_dataset_builder", self.load_dataset_builder)
        monkeypatch.setattr(hub, "require_hub", lambda *_: None)
        monkeypatch.setattr(hub_files, "_rows_of", self.rows_of)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", self.download)
        monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", self.cached)
        self.cache = folder.parent / "hub"
        self.cache.mkdir()

    def load_dataset_builder(self, name: str, config: str | None, revision: str | None) -> Any:
        self.asked.append(revision)
        return self.builder

    def rows_of(self, url: str) -> int:
        name = url.rpartition("/")[2]
        return int(parquet.read_metadata(self.folder / name).num_rows)

    def cached(self, repository: str, name: str, **where: str) -> str | None:
        path = self.cache / name
        return str(path) if path.exists() else None

    def download(self, repository: str, name: str, **where: str) -> str:
        assert repository == "a/b" and where == {"repo_type": "dataset", "revision": COMMIT}
        self.fetched.append(name)
        blob = self.cache / f"blob-{name}"
        blob.write_bytes((self.folder / name).read_bytes())
        if not (self.cache / name).exists():
            (self.cache / name).symlink_to(blob)
        return str(self.cache / name)


@pytest.fixture
def remote(folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Hub:
    return Hub(folder(), monkeypatch)


def test_each_file_is_fetched_once_and_dropped(remote: Hub) -> None:
    whole = read_all(HubCorpus(str(remote.folder)))
    by_file = read_all(HubCorpus("a/b", streaming=True))
    assert by_file.train == whole.train and by_file.validation == whole.validation
    assert remote.fetched == sorted(path.name for path in remote.folder.iterdir())
    assert list(remote.cache.iterdir()) == []


def test_a_file_that_was_there_before_stays(remote: Hub) -> None:
    name = f"train-00001-of-{FILES:05}.parquet"
    remote.download("a/b", name, repo_type="dataset", revision=COMMIT)
    read_all(HubCorpus("a/b", streaming=True))
    assert {path.name for path in remote.cache.iterdir()} == {name, f"blob-{name}"}


def test_it_comes_by_itself_where_the_disk_is_too_small(
    remote: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Api:
        def get_paths_info(self, repository: str, paths: list[str], **where: str) -> list[Path]:
            assert len(paths) == FILES and where["revision"] == COMMIT
            return [Entry() for _ in paths]  # type: ignore[misc]

    class Entry:
        size = 1e9

    loaded = list[str]()

    def load_dataset(name: str, config: str | None) -> datasets.DatasetDict:
        loaded.append(name)
        return datasets.DatasetDict(train=datasets.Dataset.from_dict({"text": ["one", "two"]}))

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(hub_files, "free_beside", lambda path: 10e9)
    assert len(read_all(HubCorpus("a/b")).texts) > 200 and loaded == []
    told = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "a/b comes file by file: about 12.0 GB are needed and 10.0 GB are free" in told
    assert len(read_all(HubCorpus("a/b", streaming=False)).texts) == 2
    monkeypatch.setattr(hub_files, "free_beside", lambda path: 20e9)
    assert len(read_all(HubCorpus("a/b")).texts) == 2 and len(loaded) == 2


class Killed(BaseException):
    pass


@pytest.mark.parametrize("tokenizer", ["bpe", "characters"])
@pytest.mark.parametrize("call", [16, 26, 40])
def test_a_killed_run_fetches_only_what_it_has_not_done(
    remote: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int, tokenizer: str
) -> None:
    monkeypatch.setattr(encoding, "DOCUMENTS_AT_ONCE", 10)
    monkeypatch.setattr(encoding, "SHARD", 500)
    source = HubCorpus("a/b", streaming=True)

    def made(cache: str) -> dict[str, bytes]:
        folder = prepare(source, tmp_path / cache, tokenizer=tokenizer, vocab_size=None)
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    whole = made("whole")
    write, calls = SplitWriter.write, 0

    def dying(self: SplitWriter, *args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise Killed
        write(self, *args)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(SplitWriter, "write", dying)
        made("cache")
    remote.fetched.clear()
    remote.asked.clear()
    assert made("cache") == whole
    done = {16: 1, 26: 2, 40: 3}[call]  # files that are tokens: two calls write 10 of 55 rows
    names = sorted(path.name for path in remote.folder.iterdir())
    assert remote.fetched == names[done:] and remote.asked == [COMMIT]
