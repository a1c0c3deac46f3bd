"""What README.md tells people to type parses, and its map of the files is complete."""

import functools
import re
import shlex

import pytest
from workshop import ROOT

from lightning_embed import cli
from lightning_embed.commands import consolidate
from lightning_embed.commands.fit import EmbedCLI

README = ROOT / "README.md"
TEXTS = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
INSTALLS = ("pip", "venv", "ensurepip")
OUTSIDE = ("pytest", "ruff", "mypy")  # other programs, which only need to be there


def commands() -> list[str]:
    """Each command of a fenced block, those joined by && apart."""
    found: dict[str, None] = {}
    for text in TEXTS:
        for block in re.findall(
            r"^```(?:sh|bash|console|text)?\n(.*?)^```",
            text.read_text(encoding="utf-8"),
            re.M | re.S,
        ):
            for line in block.replace("\\\n", " ").splitlines():
                for part in line.removeprefix("$ ").split("&&"):
                    if part.strip().startswith(("python ", "lightning-embed ")):
                        found[part.strip()] = None
    return list(found)


class Parsed(BaseException):
    """Thrown to stop a command once its settings are read."""


def without_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: object, **kwargs: object) -> None:
        raise Parsed

    monkeypatch.setattr(EmbedCLI, "before_instantiate_classes", stop)
    generating = "lightning_embed.commands.generate"
    monkeypatch.setattr(f"{generating}.LanguageModel.load_from_checkpoint", stop)
    monkeypatch.setattr(f"{generating}.require_whole", stop)
    monkeypatch.setattr(f"{generating}.Path.exists", lambda self: self.suffix == ".ckpt")
    stopped = functools.wraps(consolidate.consolidate)(stop)
    monkeypatch.setattr(consolidate, "consolidate", stopped)
    monkeypatch.setattr("lightning_embed.commands.tokenizer.TextTokenizer.adopt", stop)
    monkeypatch.setattr("lightning_embed.commands.tokenizer.TextTokenizer.load", stop)
    monkeypatch.setattr("lightning_embed.commands.tokenizer._trained", stop)


@pytest.mark.parametrize("command", commands())
def test_each_command_parses(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command, comments=True)
    if words[:2] == ["python", "-m"]:
        if words[2] in INSTALLS + OUTSIDE:
            return
        assert words[2] == "lightning_embed", command
        arguments = words[3:]
    elif words[0] == "lightning-embed":
        arguments = words[1:]
    elif words[1] == "train.py":
        arguments = words[2:]
    else:
        assert (ROOT / words[1]).is_file(), command
        return
    if arguments[-1] in ("--help", "-h"):
        assert arguments[0] in (*cli.COMMANDS, "--help", "-h")
        return
    monkeypatch.chdir(ROOT)
    without_a_run(monkeypatch)
    try:
        cli.main(arguments)
    except Parsed:
        return
    except SystemExit:
        pass
    raise AssertionError(f"{command}: {capsys.readouterr().err}")


def test_there_are_commands_to_try() -> None:
    found = commands()
    assert any("fit --config configs/stdlib.yaml" in command for command in found)
    assert any(" generate " in command for command in found)
    assert any("--ckpt_path last" in command for command in found)


def test_the_map_lists_every_file() -> None:
    text = README.read_text(encoding="utf-8")
    files = [p for p in sorted((ROOT / "lightning_embed").rglob("*.py")) if p.stat().st_size]
    files += sorted((ROOT / "configs").glob("*.yaml"))
    missing = [p.name for p in files if not re.search(rf"(?<![\w.]){re.escape(p.name)}\b", text)]
    assert not missing


def test_the_map_lists_no_file_that_is_gone() -> None:
    text = README.read_text(encoding="utf-8")
    present = {path.name for path in ROOT.rglob("*.py") if ".venv" not in path.parts}
    named = set(re.findall(r"(?<![\w/*<])(?:[\w]+/)*(\w+\.py)\b", text))
    assert named <= present, named - present


def test_links_lead_somewhere() -> None:
    for text in TEXTS:
        prose = re.sub(r"^```.*?^```", "", text.read_text(encoding="utf-8"), flags=re.M | re.S)
        for target in re.findall(r"\]\(([^)#]+)\)", prose):
            if "://" not in target:
                assert (text.parent / target).exists(), f"{text.name}: {target}"
