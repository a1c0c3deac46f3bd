"""What TensorBoard's page of text shows: the run's circumstances, its network, its samples.

That page reads Markdown.
"""

import subprocess
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from torch import nn


def as_code(text: str) -> str:
    """A block that is shown as it is."""
    return "\n".join(f"    {line}" for line in text.splitlines()) or "    "


def sample(prompt: str, continuation: str) -> str:
    """Prompt and continuation, told apart."""
    asked = as_code(prompt) if prompt else "*none: it begins a document*"
    return f"**Prompt**\n\n{asked}\n\n**Continuation**\n\n{as_code(continuation)}"


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table of Markdown."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def circumstances(command: str, versions: Iterable[tuple[str, str]], folder: Path) -> str:
    """The command, the git revision of the folder it was called in, versions and hardware."""
    command = command.replace(" --", " \\\n  --")
    rows = [("git revision", revision(folder)), *versions]
    return f"{as_code(command)}\n\n{table(('', ''), rows)}"


def revision(folder: Path) -> str:
    """The commit that is checked out in a folder, and whether files differ from it."""

    def git(*words: str) -> str:
        found = subprocess.run(
            ["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=True
        )
        return found.stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return commit + (", changed since" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return "none"


class Part(NamedTuple):
    """A row of `modules`: a module's parameters, its class, their shapes, how many they are."""

    name: str
    kind: str
    shapes: str
    parameters: int


def modules(network: nn.Module) -> str:
    """The modules that have parameters of their own, as a table; equal layers share their rows."""
    layers: list[tuple[str, list[Part]]] = []
    children = [
        (f"{name}.{number}", layer) if number else (name, layer)
        for name, child in network.named_children()
        for number, layer in (
            child.named_children() if isinstance(child, nn.ModuleList) else [("", child)]
        )
    ]
    for name, child in children:
        parts = [
            Part(
                inner,
                type(module).__name__,
                ", ".join(" x ".join(map(str, p.shape)) for p in own),
                sum(p.numel() for p in own),
            )
            for inner, module in child.named_modules()
            if (own := list(module.parameters(recurse=False)))
        ]
        layers.append((name, parts))
    rows: list[tuple[str, ...]] = []
    for parts, same in groupby(layers, key=lambda layer: layer[1]):
        names = [name for name, _ in same]
        name = names[0] if len(names) == 1 else f"{names[0]} to {names[-1].rpartition('.')[2]}"
        times = "" if len(names) == 1 else f"{len(names)} x "
        for part in parts:
            whole = f"{name}.{part.name}" if part.name else name
            rows.append((whole, part.kind, part.shapes, f"{times}{part.parameters:,}"))
    total = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    rows.append(("**all**", type(network).__name__, f"{trained:,} trained", f"{total:,}"))
    return table(("module", "class", "shapes", "parameters"), rows)
