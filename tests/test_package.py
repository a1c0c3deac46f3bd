"""The wheel: what is in it, and that it trains outside a checkout by the names of its settings;
what type checkers see of the package.

Without a network: the package is installed alone, and what it needs is this Python's.
"""

import ast
import os
import shutil
import site
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from workshop import APART, ROOT, Outcome, load, padding_is_zero

import lightning_embed

CONFIGS = {path.name for path in (ROOT / "configs").iterdir()}


def test_type_checkers_see_the_public_names() -> None:
    """In `__init__.pyi`, each from the module that `__init__.py` loads it from."""
    tree = ast.parse((ROOT / "lightning_embed" / "__init__.pyi").read_text(encoding="utf-8"))
    homes = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    loaded = {name: getattr(lightning_embed, name) for name in lightning_embed.__all__}
    assert homes == {k: f"{v.__module__}.{v.__qualname__}" for k, v in loaded.items()}
    (names,) = (ast.literal_eval(x.value) for x in tree.body if isinstance(x, ast.Assign))
    assert names == sorted(lightning_embed.__all__)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source archive, made of a checkout's files, and the wheel, made of the archive."""
    for name in ("build", "hatchling"):
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("built")
    checkout = shutil.copytree(
        ROOT, folder / "a checkout", ignore=shutil.ignore_patterns(".*", "runs", "*.egg-info")
    )
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, checkout]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.tar.gz")), next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment that has the wheel."""
    home = tmp_path_factory.mktemp("installed") / "an environment"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    where = [python, "-c", "import site; print(site.getsitepackages()[0])"]
    own = subprocess.run(where, capture_output=True, text=True, check=True).stdout.strip()
    (Path(own) / "others.pth").write_text("\n".join(site.getsitepackages()), encoding="utf-8")
    install = [python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", built[1]]
    subprocess.run(install, check=True)
    return home / "bin"


def start(folder: Path, *words: str | Path) -> Outcome:
    """A program in a folder that knows nothing of this checkout."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {**APART, "XDG_CACHE_HOME": str(folder / "cache")}
    command = list(map(str, words))
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.mark.slow
def test_the_archive_has_what_tests_and_pages_need(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= {"train.py", "configs/stdlib.yaml", "tests/workshop.py", "docs/padding.md"}
    assert names >= {"LICENSE", "constraints.txt", "benchmarks/results.jsonl"}


@pytest.mark.slow
def test_the_wheel_has_the_package_alone(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
    ours = {name for name in names if name.startswith("lightning_embed/")}
    code = {p.relative_to(ROOT).as_posix() for p in (ROOT / "lightning_embed").rglob("*.py")}
    configs = {f"lightning_embed/configs/{name}" for name in CONFIGS}
    assert ours == {*code, *configs, "lightning_embed/__init__.pyi", "lightning_embed/py.typed"}
    assert all(".dist-info/" in name for name in names - ours)


@pytest.mark.slow
def test_it_trains_and_prints_commands_that_can_be_pasted(installed: Path, tmp_path: Path) -> None:
    program = installed / "lightning-embed"
    where = [installed / "python", "-c", "import lightning_embed as x; print(x.__file__)"]
    assert start(tmp_path, *where).out.startswith(str(installed.parent))
    few = ("--trainer.max_steps", "5", "--data.final_eval_tokens", "4096")
    told = start(tmp_path, program, "fit", "--config", "stdlib", "--model.compile", "false", *few)
    assert told.status == 0, told.out + told.err
    last = tmp_path / "runs" / "stdlib" / "checkpoints" / "last.ckpt"
    assert padding_is_zero(last)
    start_of_line = f"'{program}' "  # its folder has a space in it
    assert told.line("own text").startswith(f"{start_of_line}fit --config stdlib --name mine")
    longer = told.line("go on")
    assert longer.startswith(f"{start_of_line}fit --config runs/stdlib/config.yaml")
    again = start(tmp_path, "sh", "-c", longer)
    assert again.status == 0, again.out + again.err
    assert load(last)["global_step"] == 10


@pytest.mark.slow
def test_mistakes_name_it_too(installed: Path, tmp_path: Path) -> None:
    program = installed / "lightning-embed"
    assert f"see '{program}' --help" in start(tmp_path, program, "nothing").error_line()
    told = start(tmp_path, program, "fit", "--config", "nothing").error_line()
    assert all(Path(name).stem in told for name in CONFIGS)
