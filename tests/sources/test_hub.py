"""Data sets on the Hub, or in a folder, as corpora."""

import json
import socket
from pathlib import Path
from typing import Any

import datasets
import pytest
from reading import Corpus, read_all

from lightning_embed.errors import UserError
from lightning_embed.sources.hub import HubCorpus


def write(path: Path, texts: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


@pytest.fixture(autouse=True)
def there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks the Hub how large a data set is."""
    monkeypatch.setattr("lightning_embed.sources.hub.is_too_large", lambda *_: "")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a patched Hub holds: split -> columns."""
    splits: dict[str, Any] = {}

    def load_dataset(name: str, config: str | None) -> datasets.DatasetDict:
        assert (name, config) == ("someone/stories", "small")
        return datasets.DatasetDict({k: datasets.Dataset.from_dict(v) for k, v in splits.items()})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("lightning_embed.sources.hub.require_hub", lambda *_: None)
    return splits


def from_hub(**options: Any) -> Corpus:
    return read_all(HubCorpus("someone/stories", "small", **options))


def test_a_data_set_with_a_validation_split(hub: dict[str, Any]) -> None:
    hub["train"] = {"id": [1, 2, 3, 4], "story": ["one", "", None, "zwei ü"], "text": [0] * 4}
    hub["validation"] = {"story": ["three", "\n "]}
    corpus = from_hub(text_column="story")
    assert corpus.train == ["one", "zwei ü"]
    assert corpus.train_sources == ["someone/stories#0", "someone/stories#1"]
    assert corpus.validation == ["three"]
    assert corpus.counts["empty documents"] == 3
    assert (corpus.counts["train bytes"], corpus.counts["bytes"]) == (10, 15)
    assert corpus.title == "someone/stories (small)"


@pytest.mark.parametrize(("rows", "held_out"), [(2, 1), (99, 1), (1_050, 10)])
def test_one_percent_is_held_out(hub: dict[str, Any], rows: int, held_out: int) -> None:
    hub["train"] = {"text": [f"story {i}" for i in range(rows)]}
    for options in ({}, {"validation_split": None}):
        corpus = from_hub(**options)
        assert len(corpus.validation) == held_out and len(corpus.train) == rows - held_out
        assert sorted(corpus.texts) == sorted(hub["train"]["text"])
        assert "of split 'train', evenly spaced" in corpus.notes[0]
    assert len(set(corpus.train_sources)) <= 100


def test_rows_are_held_out_by_their_number_whatever_is_empty(hub: dict[str, Any]) -> None:
    hub["train"] = {"text": ["" if i % 3 == 1 else f"story {i}" for i in range(1_050)]}
    corpus = from_hub()
    assert corpus.validation == [f"story {i}" for i in range(0, 1_050, 105) if i % 3 != 1]
    assert corpus.counts["empty documents"] == 350


def test_what_a_data_set_lacks_is_named(hub: dict[str, Any]) -> None:
    hub["train"] = {"body": ["x", "y"], "id": [1, 2]}
    with pytest.raises(UserError, match=r"name one of 'body', 'id' with --data\.text_column"):
        from_hub()
    with pytest.raises(UserError, match="column 'id' is int64, not text"):
        from_hub(text_column="id")
    with pytest.raises(UserError, match="no split 'all': it has train"):
        from_hub(text_column="body", train_split="all")
    hub["train"] = {"text": ["only one"]}
    with pytest.raises(UserError, match="too small: of 8 bytes none are left for train"):
        from_hub()


def test_a_local_folder_needs_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    folder = tmp_path / "stories"
    folder.mkdir()
    write(folder / "train.jsonl", [f"story {i}" for i in range(5)])
    source = HubCorpus(str(folder))
    before, bars = source.fingerprint, datasets.are_progress_bars_disabled()
    corpus = read_all(source)
    assert len(corpus.train) == 4 and len(corpus.validation) == 1
    assert datasets.are_progress_bars_disabled() == bars
    write(folder / "train.jsonl", [f"stories {i}" for i in range(5)])
    assert HubCorpus(str(folder)).fingerprint != before


def test_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionRefusedError

    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(UserError) as caught:
        read_all(HubCorpus("someone/stories"))
    line = str(caught.value)
    assert "\n" not in line and "HF_HUB_OFFLINE" in line and "--data.files" in line


def test_an_unknown_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> None:
        raise ValueError("Config name is missing.\nPlease pick one: ['a', 'b']")

    monkeypatch.setattr(datasets, "load_dataset", unknown)
    monkeypatch.setattr("lightning_embed.sources.hub.require_hub", lambda *_: None)
    with pytest.raises(UserError, match=r"pick one: \['a', 'b'\]; correct --data\.hub or") as e:
        read_all(HubCorpus("someone/stories"))
    assert "\n" not in str(e.value)


def test_the_hub_fingerprint_follows_every_option() -> None:
    options: list[dict[str, Any]] = [
        {"name": "a"},
        {"name": "b"},
        {"name": "a", "config": "c"},
        {"name": "a", "text_column": "c"},
        {"name": "a", "train_split": "c"},
        {"name": "a", "validation_split": None},
    ]
    assert len({HubCorpus(**o).fingerprint for o in options}) == len(options)


# -- folders whose files do not go together --------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (
            {"a.jsonl": '{"text":"x"}\n', "b.jsonl": '{"text":"y"}\n{"text":"z","m":2}\n'},
            r"'m' is int in .*b\.jsonl and absent in .*a\.jsonl; .*--data\.files '.*\*\.jsonl'",
        ),
        (
            {"a.jsonl": '{"text":"x","n":1}\n', "b.jsonl": '{"text":"y","n":"one"}\n'},
            r"column 'n' is str in .*b\.jsonl and int in .*a\.jsonl",
        ),
        ({"a.csv": "text,n\nx,1\n", "b.csv": "text,m\ny,2\n"}, r"column 'm' is there in .*b\.csv"),
        ({"a.jsonl": '{"text":"x"}\n{"text":\n'}, r"a\.jsonl:2 does not parse as JSON"),
        ({"a.csv": "text,n\nx,1\ny,2,3\n"}, r"a\.csv.*Expected 2 fields in line 3, saw 3"),
        ({"a.parquet": "no parquet"}, r"a\.parquet does not read as parquet"),
        ({}, "doesn't contain any data files.*--data.hub"),
        ({"notes.rst": "x"}, r"No \(supported\) data files.*--data.files"),
    ],
)
def test_a_folder_that_does_not_read(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    files: dict[str, str],
    told: str,
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    folder = tmp_path / "stories"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    with pytest.raises(UserError, match=told) as caught:
        read_all(HubCorpus(str(folder)))
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    assert capfd.readouterr() == ("", "")  # the library's own log says it once more


@pytest.mark.parametrize(
    "error",
    [
        datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' is a gated dataset on the Hub."),
        datasets.exceptions.DataFilesNotFoundError("no files"),
        datasets.exceptions.DatasetsError("whatever\nelse"),
    ],
)
def test_a_data_set_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    monkeypatch.setattr("lightning_embed.sources.hub.require_hub", lambda *_: None)
    with pytest.raises(UserError, match=r"cannot be had: .*correct --data\.hub") as caught:
        read_all(HubCorpus("a/b"))
    assert "\n" not in str(caught.value)


def test_nested_columns_and_messages(hub: dict[str, Any]) -> None:
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    hub["train"] = {"m": [said] * 2 + [None], "a": [{"b": "deep"}, {"b": "er"}, {"b": None}]}
    assert from_hub(text_column="m").texts == ["user: Hi\n\nassistant: Hello"] * 2
    corpus = from_hub(text_column="a.b")
    assert sorted(corpus.texts) == ["deep", "er"] and corpus.counts["empty documents"] == 1
    with pytest.raises(UserError, match="row 1: column 'a' is dict, not text"):
        from_hub(text_column="a")


def test_a_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[Any]()

    def load_dataset(name: str, config: str | None, revision: str) -> datasets.DatasetDict:
        asked.append(revision)
        return datasets.DatasetDict(all=datasets.Dataset.from_dict({"text": ["one", "two"]}))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("lightning_embed.sources.hub.require_hub", lambda *_: None)
    source = HubCorpus("a/b", train_split="all", revision="v2")
    assert sorted(read_all(source).texts) == ["one", "two"] and asked == ["v2"]
    other = HubCorpus("a/b", train_split="all")
    assert source.fingerprint != other.fingerprint
    assert source.name_of_text != other.name_of_text
