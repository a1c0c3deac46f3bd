"""docs/architecture.md: the map is the tree, the example runs, functions and callbacks exist."""

import doctest
import re
import tempfile
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from test_rooms import GROUND, ROOMS, room_of
from workshop import ROOT, Workshop

PAGE = ROOT / "docs" / "architecture.md"


def blocks(language: str) -> list[str]:
    """What stands between fences of this language."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    return [block for its, block in found if its == language]


def map_of_files() -> list[str]:
    """The files that the map names, in its order, each with its folders before it."""
    (tree,) = (block for block in blocks("") if block.startswith("lightning_embed/"))
    named, path = [], [""]
    for line in tree.splitlines():
        name, depth = line.split()[0], (len(line) - len(line.lstrip())) // 2
        assert len(line.split()) > 1 or depth == 0, f"no word about {name}"
        path[depth:] = [name]
        if not name.endswith("/"):
            named.append("".join(path))
    return named


def test_the_map_is_the_tree() -> None:
    package = ROOT / "lightning_embed"
    present = {p for p in package.rglob("*.py") if p.name != "__init__.py" or p.parent == package}
    assert sorted(map_of_files()) == sorted(p.relative_to(ROOT).as_posix() for p in present)


def test_the_map_has_the_rooms_in_order() -> None:
    modules = [name.removesuffix(".py").replace("/", ".") for name in map_of_files()]
    rooms = [room_of(name.removeprefix("lightning_embed.")) for name in modules]
    assert rooms[0] == GROUND and list(dict.fromkeys(rooms)) == ROOMS


def test_the_way_of_one_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pasted into Python in order, the blocks print what the page shows."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    example = doctest.DocTestParser().get_doctest(
        "".join(blocks("pycon")), {}, PAGE.name, str(PAGE), 0
    )
    told: list[str] = []
    failed, tried = doctest.DocTestRunner(verbose=False).run(example, out=told.append)
    assert tried > 50 and not failed, "".join(told)


def test_functions_are_in_the_files_named_after_them() -> None:
    """`name`, `file.py`: the file defines it."""
    text = PAGE.read_text(encoding="utf-8")
    pairs = re.findall(r"`([\w.]+)`(?:,| \(|,? of) ?\n?`([\w/]+\.py)`", text)
    assert len(pairs) > 15
    for name, file in pairs:
        code = (ROOT / "lightning_embed" / file).read_text(encoding="utf-8")
        last = name.rpartition(".")[2]
        defined = re.search(rf"^ *(def|class) {last}\b|^{last}\b", code, re.M)
        assert defined, f"{file} does not define {name}"


class Listener(L.Callback):
    """Prints which callbacks of a run have something to do in each hook, in the order of calls."""

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        hooks = (name for name in vars(L.Callback) if name.startswith("on_"))
        for hook in hooks:
            own = getattr(L.Callback, hook)
            callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
            names = [type(c).__name__ for c in callbacks if getattr(type(c), hook) is not own]
            print(f"{hook}: {', '.join(names)}")


def test_callbacks_act_in_the_order_told(workshop: Workshop) -> None:
    told = workshop.fit("one", "--trainer.callbacks+", "test_architecture.Listener", steps=1)
    (table,) = (block for block in blocks("") if block.startswith("on_"))
    assert len(table.splitlines()) > 5
    for line in table.splitlines():
        hook, names = line.split(maxsplit=1)
        assert told.line(f"{hook}:") == names
