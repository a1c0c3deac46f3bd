"""Which module may import which: always one on a lower floor, so there is no cycle.

This table is the one place that states it. Imports inside functions and for type checkers count.
"""

import ast
from pathlib import Path

import pytest

import lightning_embed

ROOT = Path(lightning_embed.__file__).parent

FLOORS = [
    {
        "special_tokens",
        "console",
        "hardware",
        "compiling",
        "meters",
        "hub",
        "files",
        "stdlib",
        "corpus_store",
        "parsing",
        "padded",
        "tensors",
        "position",
        "sharded",
    },
    {"embedding", "attention", "loss", "optim", "plan", "adoption", "checkpoints", "foreign"},
    {
        "settings",
        "model",
        "batching",
        "metrics",
        "tokenizer",
        "hub_corpus",
        "runs",
        "predictions",
        "row_watch",
        "audit",
    },
    {"corpus", "curves", "fsdp", "sizes"},
    {"lightning_module"},
    {"prepared", "generate", "tokenizing"},
    {"datamodule"},
    {
        "callbacks.crowding",
        "callbacks.loss_watch",
        "callbacks.padding_guard",
        "callbacks.resuming",
        "callbacks.run_length",
        "callbacks.samples",
        "callbacks.seeding",
        "callbacks.throughput",
    },
    {"callbacks.checkpointing", "callbacks.progress"},
    {"callbacks.signals"},
    {"summary"},
    {"run"},
    {"cli"},
    {"__main__"},
]
ON = {module: number for number, floor in enumerate(FLOORS) for module in floor}
EMPTY = {"__init__", "callbacks.__init__"}  # the package's names are loaded when first used

# With torch alone, for a notebook: these and all that they import.
PLAIN_TORCH = ("embedding", "attention", "loss", "model", "optim", "plan", "batching", "padded")
HEAVY = {"lightning", "datasets", "tokenizers", "torchmetrics", "jsonargparse", "tensorboard"}


def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in ROOT.rglob("*.py")
    }


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


def own_imports(path: Path) -> set[str]:
    """The package's modules among them."""
    inside = {name.removeprefix("lightning_embed.") for name in imports(path)}
    return inside & set(modules())


def test_every_module_has_a_floor_and_every_floor_its_modules() -> None:
    assert sum(map(len, FLOORS)) == len(ON)
    assert set(modules()) - EMPTY == set(ON)


@pytest.mark.parametrize("module", sorted(ON))
def test_imports_come_from_lower_floors(module: str) -> None:
    for other in own_imports(modules()[module]):
        assert ON[other] < ON[module], f"{module} imports {other}, which is not below it"


@pytest.mark.parametrize("module", sorted(EMPTY))
def test_importing_the_package_imports_nothing_of_it(module: str) -> None:
    assert own_imports(modules()[module]) == set()


@pytest.mark.parametrize("module", PLAIN_TORCH)
def test_the_network_needs_torch_alone(module: str) -> None:
    todo, seen = {module}, set()
    while todo:
        name = todo.pop()
        seen.add(name)
        path = modules()[name]
        heavy = {found.split(".")[0] for found in imports(path)} & HEAVY
        assert not heavy, f"{module} needs {heavy} through {name}"
        todo |= own_imports(path) - seen


def test_data_and_model_meet_only_on_the_command_line() -> None:
    for one, other in (("datamodule", "lightning_module"), ("lightning_module", "datamodule")):
        todo, seen = {one}, set()
        while todo:
            name = todo.pop()
            seen.add(name)
            todo |= own_imports(modules()[name]) - seen
        assert other not in seen
