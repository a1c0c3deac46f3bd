"""Files of settings that come with the package, by name: `--config stdlib`.

In a checkout they are the top folder's, in an installed package they lie beside its code.
"""

import re
from itertools import pairwise
from pathlib import Path

from lightning_embed.commands.parser import expand
from lightning_embed.errors import UserError

NAME = re.compile(r"[\w-]+")


def folder() -> Path:
    """Where they are."""
    package = Path(__file__).parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def with_shipped_configs(args: list[str]) -> list[str]:
    """The same arguments with the path of a shipped file for each name behind `--config`.

    Raises:
        UserError: neither a file nor one of the names.
    """
    found = list(args)
    for index, (before, arg) in enumerate(pairwise(["", *args])):
        name, joined, value = arg.partition("=")
        if before in ("--config", "-c"):
            found[index] = _path(arg)
        elif joined and name in ("--config", "-c"):
            found[index] = f"{name}={_path(value)}"
    return found


def shown(file: str) -> str:
    """How a settings file is named in a command that can be pasted."""
    return Path(file).stem if Path(file).parent == folder() else file


def _path(value: str) -> str:
    """Of the file that `value` names; what is no name of a file is left to the parser."""
    path = Path(expand(value))
    shipped = folder() / f"{path.stem}.yaml"
    if path.is_file() or not (NAME.fullmatch(value) or path.suffix in (".yaml", ".yml")):
        return value
    if NAME.fullmatch(value) and shipped.is_file():
        return str(shipped)
    names = ", ".join(sorted(file.stem for file in folder().glob("*.yaml")))
    there = f"--config {path.stem} comes" if shipped.is_file() else f"{names} come"
    raise UserError(f"--config {value}: no such file; {there} with the package")
