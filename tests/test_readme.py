"""Commands that the pages show parse, links lead somewhere, files they name are there."""

import functools
import inspect
import re
import shlex
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from workshop import ROOT

from lightning_embed import cli
from lightning_embed.commands import data_clean, data_list, data_show, data_verify, runs
from lightning_embed.commands.fit import EmbedCLI

README = ROOT / "README.md"
TEXTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
LONGEST_README = 150  # lines; the rest is in docs/
OURS = (["python", "train.py"], ["python", "-m", "lightning_embed"], ["lightning-embed"])


def blocks(text: Path) -> list[str]:
    """What stands between fences, Python aside."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text.read_text(encoding="utf-8"), re.M | re.S)
    return [block for language, block in found if language != "python"]


def commands() -> list[list[str]]:
    """The arguments of each command of ours in a block, those joined by && apart."""
    found: dict[tuple[str, ...], None] = {}
    for block in (block for text in TEXTS for block in blocks(text)):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.removeprefix("$ ").split("&&"):
                words = part.split()[:3]  # a drawing or a transcript may hold quotes alone
                if own := [name for name in OURS if words[: len(name)] == name]:
                    found[tuple(shlex.split(part, comments=True)[len(own[0]) :])] = None
    return [list(arguments) for arguments in found]


class Parsed(BaseException):
    """Thrown to stop a command once its settings are read."""


def stops(function: Callable[..., object]) -> Callable[..., object]:
    @functools.wraps(function)
    def stop(*args: object, **kwargs: object) -> None:
        raise Parsed

    return stop


def without_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "before_instantiate_classes"
    monkeypatch.setattr(EmbedCLI, name, stops(getattr(EmbedCLI, name)))
    monkeypatch.setattr(runs, "tell", stops(runs.tell))
    monkeypatch.setattr(data_show, "look", stops(data_show.look))
    for verb in (data_clean, data_list, data_verify):
        monkeypatch.setattr(verb, "kept_under", stops(verb.kept_under))
    for target in cli.COMMANDS.values():
        module, _, name = target.partition(":")
        function = getattr(import_module(module), name)
        if list(inspect.signature(function).parameters) != ["args"]:  # else it is one of the above
            monkeypatch.setattr(f"{module}.{name}", stops(function))


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_each_command_parses(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    without_a_run(monkeypatch)
    try:
        status = cli.main(arguments)
    except Parsed:
        return
    except SystemExit as ended:
        status = ended.code
    assert status == 0 and arguments[-1] == "--help", capsys.readouterr().err


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= LONGEST_README


def test_what_the_readme_shows_in_python_runs() -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", README.read_text("utf-8"), re.M | re.S)
    exec(compile(block, "README.md", "exec"), {})


def named_files() -> list[tuple[str, str]]:
    """The page and a Python file or page that it names in prose or tables."""
    found = []
    for text in TEXTS:
        prose = re.sub(r"^```.*?^```", "", text.read_text(encoding="utf-8"), flags=re.M | re.S)
        names = re.findall(r"`(?:[^`]*\s)?([\w./]+\.(?:py|md))(?:\s[^`]*)?`", prose)
        found += [(text.relative_to(ROOT).as_posix(), name) for name in dict.fromkeys(names)]
    return found


@pytest.mark.parametrize(("page", "name"), named_files())
def test_files_named_are_there(page: str, name: str) -> None:
    """From the project's folder or, shorter, from the package's."""
    assert any((folder / name).is_file() for folder in (ROOT, ROOT / "lightning_embed"))


def test_each_configuration_is_described() -> None:
    said = "".join(text.read_text(encoding="utf-8") for text in TEXTS)
    assert [
        p.name for p in (ROOT / "configs").glob("*.yaml") if f"configs/{p.name}" not in said
    ] == []


def links() -> list[tuple[str, str]]:
    """The page and what it points to, addresses on the net aside."""
    found = []
    for text in TEXTS:
        prose = re.sub(r"^```.*?^```", "", text.read_text(encoding="utf-8"), flags=re.M | re.S)
        targets = re.findall(r"\]\(([^)#]+)\)", prose)
        found += [(text.relative_to(ROOT).as_posix(), x) for x in targets if "://" not in x]
    return found


@pytest.mark.parametrize(("page", "target"), links())
def test_links_lead_somewhere(page: str, target: str) -> None:
    assert ((ROOT / page).parent / target).exists()
