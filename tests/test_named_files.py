"""Files that docstrings, comments and pages name are there."""

import re
from pathlib import Path

from workshop import ROOT

NAME = r"[\w./-]*\w\.(?:py|md|yaml)\b"
WRITTEN = {"config.yaml", "config-resume-1.yaml"}  # by a run, into its folder
FOLDERS = ("lightning_embed", "configs", "docs", "tests", "benchmarks")
FILES = [path for path in sorted(ROOT.iterdir()) if path.is_file()]
FILES += [path for name in FOLDERS for path in sorted((ROOT / name).rglob("*.*"))]
PATHS = [f"/{path.relative_to(ROOT).as_posix()}" for path in FILES]


def in_backticks(text: str) -> set[str]:
    """Names in inline code; blocks of code are tried elsewhere."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return {name for code in re.findall(r"`([^`\n]+)`", prose) for name in re.findall(NAME, code)}


def named_by(path: Path) -> set[str]:
    place = path.relative_to(ROOT).parts[0]
    if place in ("tests", "benchmarks") or path.suffix not in (".py", ".md", ".yaml"):
        return set()
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        return set(re.findall(NAME, "\n".join(re.findall(r"#.*", text))))
    return in_backticks(text)


def is_there(name: str) -> bool:
    """A name alone, or with the folders that tell it from others."""
    return name in WRITTEN or any(path.endswith(f"/{name}") for path in PATHS)


def test_named_files_are_there() -> None:
    named = [(path.relative_to(ROOT).as_posix(), name) for path in FILES for name in named_by(path)]
    assert len(named) > 50
    assert sorted(f"{path} names {name}" for path, name in named if not is_there(name)) == []


def test_a_wrong_name_is_seen() -> None:
    assert in_backticks("see `model/loss.py` and `gone.py`") == {"model/loss.py", "gone.py"}
    assert is_there("model/loss.py") and not is_there("gone.py") and not is_there("s.py")
