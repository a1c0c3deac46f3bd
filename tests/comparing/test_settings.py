"""In which settings runs differ."""

from pathlib import Path

import pytest
import yaml
from made_runs import settings

from lightning_embed.comparing.settings import changed, differing, read_settings, setting, written


def test_what_differs_from_the_first_is_shown_and_places_are_not() -> None:
    first = settings()
    other = settings(model__lr=0.01, data__files=["a.txt", "b.txt"], trainer__default_root_dir="x")
    other["name"] = "other"
    assert changed(first, other) == {"model.lr": "0.01", "data.files": "a.txt,b.txt"}
    assert changed(first, first) == {}


def test_settings_of_several_runs_stand_by_section() -> None:
    runs = [settings(), settings(trainer__max_steps=5), settings(model__lr=1.0, data__files="a")]
    assert differing(runs) == ["model.lr", "data.files", "trainer.max_steps"]


def test_a_setting_that_one_version_does_not_know_is_left_out() -> None:
    assert changed(settings(), settings(model__new_knob=True)) == {}


def test_a_class_is_one_setting() -> None:
    mine = settings(data__source={"class_path": "my.module.Mine", "init_args": {"n": 1}})
    assert changed(settings(), mine) == {"data.source": "Mine"}
    other = settings(data__source={"class_path": "my.module.Mine", "init_args": {"n": 2}})
    assert list(changed(mine, other)) == ["data.source"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), (True, "true"), (False, "false"), (1, "1"), (0.00424, "0.00424")],
)
def test_values_are_written_as_on_the_command_line(value: object, text: str) -> None:
    assert written(value) == text


def test_a_setting_by_its_dotted_name() -> None:
    assert setting(settings(), "model.lr") == 0.003
    assert setting(settings(), "model.lr.x") is setting(settings(), "no.such") is None


def test_the_latest_resume_counts(tmp_path: Path) -> None:
    names = ("config.yaml", *(f"config-resume-{number}.yaml" for number in range(1, 12)))
    for steps, name in enumerate(names):
        found = settings(trainer__max_steps=steps)
        (tmp_path / name).write_text(yaml.safe_dump(found), encoding="utf-8")
    assert read_settings(tmp_path)["trainer"]["max_steps"] == 11


@pytest.mark.parametrize("text", ["", "a: [", "model: 1\ndata: 2\ntrainer: 3", "- 1", "\0"])
def test_what_is_no_configuration_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.yaml"):
        read_settings(tmp_path)
