"""Every file in configs/ is tried: parsed whole, then run with fewer steps on a small text."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import yaml
from workshop import ROOT, Workshop, padding_is_zero, run

from lightning_embed import LanguageModel
from lightning_embed.commands.fit import EmbedCLI

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
OVERLAYS = ("ddp", "fsdp")
RUNS = [path for path in CONFIGS if path.stem not in OVERLAYS]
SHORT = (
    *("--trainer.max_steps", "3", "--trainer.limit_val_batches", "2", "--trainer.devices", "1"),
    *(
        "--model.compile",
        "false",
        "--samples.max_new_tokens",
        "3",
        "--trainer.precision",
        "32-true",
    ),
    *("--model.d_model", "32", "--model.n_heads", "2", "--model.n_layers", "1"),
    *("--trainer.val_check_interval", "1.0", "--trainer.check_val_every_n_epoch", "1"),
    *("--trainer.accelerator", "cpu", "--data.num_workers", "0", "--pages.pictures", "false"),
)


class Parsed(BaseException):
    """Thrown to stop a command once its settings are read."""


def parse(monkeypatch: pytest.MonkeyPatch, command: str, *arguments: str | Path) -> Any:
    """The settings a command would run with; nothing is built."""
    found: list[Any] = []

    def stop(self: EmbedCLI) -> None:
        found.append(self.config[command])
        raise Parsed

    monkeypatch.setattr(EmbedCLI, "before_instantiate_classes", stop)
    with pytest.raises(Parsed):
        EmbedCLI(command, [str(x) for x in arguments])
    return found[0]


def leaves(settings: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Each value by its dotted name."""
    if isinstance(settings, dict):
        for key, value in settings.items():
            yield from leaves(value, (*place, key))
    else:
        yield ".".join(place), settings


EVALUATION = [(ROOT / "configs" / "stdlib.yaml", name) for name in ("validate", "test", "predict")]


@pytest.mark.parametrize(
    ("path", "command"),
    [*((path, "fit") for path in CONFIGS), *EVALUATION],
    ids=lambda value: getattr(value, "stem", value),
)
def test_it_parses_and_sets_what_it_says(
    monkeypatch: pytest.MonkeyPatch, path: Path, command: str
) -> None:
    found = dict(leaves(parse(monkeypatch, command, "--config", path).as_dict()))
    said = dict(leaves(yaml.safe_load(path.read_text(encoding="utf-8"))))
    assert said and {name: found[name] for name in said} == said


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_value_is_explained(path: Path) -> None:
    """By a comment on its line, or on one above it in its section."""
    head, *sections = re.split(r"^\w+:\n", path.read_text(encoding="utf-8"), flags=re.M)
    assert head.startswith("# ") and sections
    assert [s.splitlines()[0] for s in sections if "#" not in s.splitlines()[0]] == []


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_its_model_can_be_built(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    settings = parse(monkeypatch, "fit", "--config", path)
    options = {k: v for k, v in settings.model.as_dict().items() if k != "vocab_size"}
    with torch.device("meta"):
        model = LanguageModel(**options, vocab_size=settings.data.vocab_size or 50_261)
        logits = model(torch.zeros(1, 8, dtype=torch.int64))
    assert logits.shape[:2] == (1, 8)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_it_trains_a_few_steps_on_a_local_text(workshop: Workshop, path: Path) -> None:
    """Its data settings stay as they are where a small text can bear them."""
    told = run(
        *("fit", "--config", path, *SHORT, *workshop.where, "--data.hub", "null"),
        *("--data.hub_config", "null", "--data.tokens_per_batch", "2048"),
        *(("--data.tokenizer", "bpe") if path.stem == "gpt2_124m" else ()),
    )
    assert told.status == 0, told.out + told.err
    assert float(told.line("bits per byte")) > 0
    assert workshop.runs() == [path.stem]
    assert padding_is_zero(workshop.checkpoint(path.stem))
    assert f"runs/{path.stem}/config.yaml" in told.line("go on")  # further options were given


@pytest.mark.parametrize("name", ["tinystories", "gpt2_124m"])
def test_without_a_network_it_ends_in_one_line_before_the_hub_is_asked(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The Hub's own client would try again for twenty seconds."""

    def asked(*args: object, **kwargs: object) -> None:
        raise AssertionError("the Hub's client was asked")

    monkeypatch.setattr(datasets, "load_dataset", asked)
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # where nobody listens
    told = run(
        *("fit", "--config", ROOT / "configs" / f"{name}.yaml", "--data.tokenizer", "bpe"),
        *("--data.cache_dir", workshop.cache, "--trainer.default_root_dir", workshop.root),
    )
    assert "HF_HUB_OFFLINE" in told.error_line() and "--data.files" in told.err
    assert workshop.runs() == []
