"""Every shipped configuration that names a data set of the Hub, against what the Hub says of it.

`hub_metadata.json` has columns and splits as they were recorded, and from where.
"""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from reading import read_all
from workshop import ROOT

from lightning_embed.data.datamodule import TextDataModule
from lightning_embed.errors import UserError

RECORDED = json.loads((Path(__file__).parent / "hub_metadata.json").read_text(encoding="utf-8"))
SETTINGS = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8")).get("data") or {}
    for path in sorted((ROOT / "configs").glob("*.yaml"))
}
NAMING = [name for name, settings in SETTINGS.items() if settings.get("hub")]
ROWS = 300
MADE_UP = {"string": str, "int64": int, "float64": float}


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Hub with the recorded data sets, whose rows are made up."""

    def load_dataset(name: str, config: str | None) -> datasets.DatasetDict:
        about = RECORDED[name]["configs"][config or "default"]  # as the Hub: no other name will do
        features = datasets.Features.from_dict(about["features"])

        def column(split: str, feature: str) -> list[Any]:
            if feature == "text":
                return [f"{split} {number}" for number in range(ROWS)]
            make = MADE_UP[features[feature].dtype]
            return [make(number) for number in range(ROWS)]

        return datasets.DatasetDict(
            {
                split: datasets.Dataset.from_dict(
                    {feature: column(split, feature) for feature in features}, features=features
                )
                for split in about["rows"]
            }
        )

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("lightning_embed.sources.hub.require_hub", lambda *_: None)


def test_there_is_a_record_of_each() -> None:
    assert len(NAMING) >= 2
    assert {SETTINGS[name]["hub"] for name in NAMING} == RECORDED.keys()
    assert all(about["recorded_from"] for about in RECORDED.values())


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("name", NAMING)
def test_its_column_and_splits_are_those_of_the_hub(name: str) -> None:
    settings = SETTINGS[name]
    about = RECORDED[settings["hub"]]["configs"][settings.get("hub_config") or "default"]
    found = read_all(TextDataModule(**settings).text.source)
    assert {"train 1", "train 2"} <= set(found.train)
    if "validation" in about["rows"]:
        assert found.validation == [f"validation {number}" for number in range(ROWS)]
        assert len(found.train) == ROWS
    else:
        assert found.validation == ["train 0", "train 100", "train 200"]
    assert not found.counts["empty documents"]


@pytest.mark.usefixtures("recorded")
def test_another_column_would_be_noticed() -> None:
    settings = SETTINGS["gpt2_124m"]
    for column, told in (("body", "name one of"), ("token_count", "is int64, not text")):
        with pytest.raises(UserError, match=told):
            read_all(TextDataModule(**settings, text_column=column).text.source)
    with pytest.raises(KeyError):
        read_all(TextDataModule(**settings | {"hub_config": "sample-10B"}).text.source)
