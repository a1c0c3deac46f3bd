"""`--config NAME`: settings files that come with the package, from any folder."""

from pathlib import Path

import pytest
import yaml
from workshop import ROOT, TINY, Workshop, run

from lightning_embed.commands import shipped_configs
from lightning_embed.commands.shipped_configs import folder, shown, with_shipped_configs
from lightning_embed.errors import UserError

NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the working one."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


@pytest.mark.parametrize("name", NAMES)
def test_each_goes_by_its_name(name: str) -> None:
    path = str(ROOT / "configs" / f"{name}.yaml")
    args = ["--config", name, "--name", name, f"--config={name}", "-c", name]
    assert with_shipped_configs(args) == [
        *("--config", path, "--name", name, f"--config={path}", "-c", path)
    ]
    assert shown(path) == name


def test_beside_the_code_of_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "lightning_embed" / "commands" / "shipped_configs.py"
    inside = tmp_path / "lightning_embed" / "configs"
    inside.mkdir(parents=True)
    monkeypatch.setattr(shipped_configs, "__file__", str(module))
    assert folder() == inside


def test_a_file_of_that_name_comes_first(elsewhere: Path) -> None:
    (elsewhere / "stdlib").write_text("data:\n  max_length: 64\n", encoding="utf-8")
    (elsewhere / "ddp").mkdir()  # a folder is no file
    given = ["--config", "stdlib", "--config", "ddp"]
    assert with_shipped_configs(given)[1::2] == ["stdlib", str(ROOT / "configs" / "ddp.yaml")]
    assert shown("stdlib") == "stdlib" and shown("configs/ddp.yaml") == "configs/ddp.yaml"


@pytest.mark.parametrize("value", ["nothing", "mine.yaml", "some/where/mine.yml"])
def test_an_unknown_one_is_told_the_names_there_are(value: str) -> None:
    told = run("fit", "--config", value).error_line()
    assert told.startswith(f"--config {value}: no such file; {', '.join(NAMES)} come")


def test_a_checkouts_path_elsewhere_is_told_the_name() -> None:
    with pytest.raises(UserError, match="no such file; --config stdlib comes with the package"):
        with_shipped_configs(["--config", "configs/stdlib.yaml"])


def test_what_is_no_name_is_left_to_the_parser() -> None:
    given = ["--config", '{"data": {"max_length": 64}}', "--config", "", "--config"]
    assert with_shipped_configs(given) == given


def test_a_run_by_name_prints_the_name(workshop: Workshop, tmp_path: Path) -> None:
    text = tmp_path / "text.yaml"  # named on the command line, there would be no hint
    text.write_text(yaml.safe_dump({"data": {"files": workshop.files}}), encoding="utf-8")
    fewer = ("--data.eval_overlap", "0", "--trainer.max_steps", "1")
    told = run("fit", "--config", "stdlib", "--config", text, *TINY, *workshop.where[2:], *fewer)
    assert told.status == 0, told.err
    assert workshop.runs() == ["stdlib"]
    own = f"fit --config stdlib --config {text} --name mine --data.files"
    assert own in told.line("own text")
    assert " -m lightning_embed fit " in told.line("go on")
