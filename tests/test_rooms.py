"""Which room may import which: its own, without a cycle, and those above it in this list.

Imports inside functions and for type checkers count.
"""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import lightning_embed

ROOT = Path(lightning_embed.__file__).parent

GROUND, DOOR = "ground", "door"
ROOMS = [
    GROUND,
    "padding",
    "model",
    "checkpointing",
    "sources",
    "tokens",
    "data",
    "pretrained",
    "inference",
    "evaluation",
    "training",
    "recording",
    "watching",
    "comparing",
    "inspecting",
    "audit",
    "commands",
    DOOR,
]
DOORS = {"cli", "__main__"}  # the files beside the rooms are the ground, except for these

# With torch alone, for a notebook.
PLAIN_TORCH = (
    "padding.embedding",
    "padding.padded",
    "model.attention",
    "model.decoder",
    "model.loss",
    "data.windows",
    "data.packing",
    "data.plan",
    "data.batch",
    "data.loader",
    "training.optim",
)
HEAVY = {"lightning", "datasets", "tokenizers", "torchmetrics", "jsonargparse", "tensorboard"}


@cache
def modules() -> dict[str, Path]:
    """Every module by its dotted name below the package; a room's `__init__` is the room's name."""
    found = {}
    for path in ROOT.rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


def room_of(module: str) -> str:
    room, inside, _ = module.partition(".")
    if inside or (ROOT / room).is_dir():
        return room
    return DOOR if module in DOORS else GROUND


def imports(path: Path) -> set[str]:
    """Dotted names of everything a file imports, `from a import b` as both `a` and `a.b`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@cache
def own_imports(module: str) -> frozenset[str]:
    """The package's modules that a module imports, rooms themselves left out."""
    inside = {name.removeprefix("lightning_embed.") for name in imports(modules()[module])}
    return frozenset(name for name in inside & set(modules()) if name not in ROOMS)


def reached_from(module: str) -> set[str]:
    """The module and everything of the package that it imports, directly or through others."""
    todo, seen = {module}, set()
    while todo:
        name = todo.pop()
        seen.add(name)
        todo |= own_imports(name) - seen
    return seen


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_come_from_the_same_room_or_from_those_before_it(module: str) -> None:
    floor = ROOMS.index(room_of(module))
    for other in own_imports(module):
        room = room_of(other)
        assert ROOMS.index(room) <= floor, f"{module} imports {other}, whose room comes later"


@pytest.mark.parametrize("module", sorted(modules()))
def test_no_module_imports_itself_through_others(module: str) -> None:
    for other in own_imports(module):
        assert module not in reached_from(other), f"{module} and {other} import each other"


@pytest.mark.parametrize("room", [*ROOMS[1:-1], "__init__"])
def test_opening_a_room_imports_nothing_of_it(room: str) -> None:
    """Each name costs only what it needs."""
    assert not own_imports(room)
    assert ast.get_docstring(ast.parse(modules()[room].read_text(encoding="utf-8")))


def test_the_network_needs_torch_alone() -> None:
    """In a process of its own, where nobody else has imported anything."""
    modules = ", ".join(f"lightning_embed.{module}" for module in PLAIN_TORCH)
    program = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "torch" in done.stdout.split()
    assert not HEAVY & set(done.stdout.split())


def test_data_and_model_meet_only_in_a_command() -> None:
    data, model = "data.datamodule", "training.lightning_module"
    assert data not in reached_from(model) and model not in reached_from(data)
