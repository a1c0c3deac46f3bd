"""The site of docs/, README.md and the docstrings: it builds, and a wrong link ends the build."""

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from workshop import ROOT

import lightning_embed

SITE = ROOT / ".ci" / "mkdocs.yml"
PARTS = (".ci", "docs", "benchmarks", "lightning_embed", "README.md", "CHANGELOG.md")


def test_the_api_page_has_every_public_name() -> None:
    shown = re.findall(r"^::: ([\w.]+)$", (ROOT / "docs" / "api.md").read_text("utf-8"), re.M)
    objects = [getattr(lightning_embed, name) for name in lightning_embed.__all__]
    assert {f"{x.__module__}.{x.__qualname__}" for x in objects} <= set(shown)


def test_the_menu_has_every_page() -> None:
    menu = re.findall(r"[\w/]+\.md", yaml.safe_dump(yaml.safe_load(SITE.read_text("utf-8"))["nav"]))
    assert set(menu) >= {path.name for path in (ROOT / "docs").glob("*.md")}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the site is made of."""
    for name in (*PARTS, "CONTRIBUTING.md"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    return tmp_path


def build(checkout: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", ".ci/mkdocs.yml"]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True)


needs_mkdocs = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings")),
    reason="needs the extra docs",
)


@pytest.mark.slow
@needs_mkdocs
def test_it_builds_without_a_warning(checkout: Path) -> None:
    done = build(checkout)
    assert done.returncode == 0, done.stderr
    site = checkout / "build" / "site"
    start = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="running/#one-dial-minutes"' in start and 'href="benchmarks/RESULTS/"' in start
    assert "standard deviation" in (site / "api" / "index.html").read_text(encoding="utf-8")
    assert (site / "examples" / "guard.py").is_file()
    hosts = set(re.findall(r'(?:src|<link[^>]* href)="(https?://[^/"]+)', start))
    assert not hosts  # a page loads nothing from elsewhere


@pytest.mark.slow
@needs_mkdocs
@pytest.mark.parametrize(
    ("page", "right", "wrong"),
    [
        ("README.md", "(docs/resuming.md)", "(docs/nothing.md)"),
        ("README.md", "#one-dial-minutes", "#two-dials"),
        ("docs/examples.md", "(examples/guard.py)", "(examples/nothing.py)"),
        ("docs/api.md", "DecoderLM", "Nothing"),
    ],
)
def test_a_wrong_link_ends_the_build(checkout: Path, page: str, right: str, wrong: str) -> None:
    text = (checkout / page).read_text(encoding="utf-8")
    assert right in text
    (checkout / page).write_text(text.replace(right, wrong), encoding="utf-8")
    done = build(checkout)
    assert done.returncode != 0 and wrong.strip("()") in done.stderr
