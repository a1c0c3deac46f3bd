"""The settings of a command, which of them the user gave, and those chosen in place of the rest."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from lightning_embed.commands.parser import expand


class Options:
    """The settings of a command, by dotted names, and which of them the user gave.

    Args:
        config: parsed settings, changed in place.
        named: options that count as given also where they are as by default.
        default: of an option.
    """

    def __init__(self, config: Any, named: set[str], default: Callable[[str], Any]) -> None:
        self.config, self.default, self._named = config, default, named
        self.chosen: dict[str, Any] = {}
        self.kept: list[str] = []

    def __getitem__(self, name: str) -> Any:
        return self.config[name]

    def given(self, name: str) -> Any:
        """The user's value, or None: an option's own way of saying "choose" is no value."""
        value = self.config[name]
        if value in (None, "auto") or (value == -1 and name.startswith("trainer.")):
            return None
        return value if name in self._named or value != self.default(name) else None

    def keep(self, name: str) -> Any:
        """The user's value, or None, which is then to be chosen."""
        value = self.given(name)
        if value is not None and name not in self.kept:
            self.kept.append(name)
        return value

    def choose(self, name: str, value: Any) -> None:
        """Unless the user has."""
        if self.keep(name) is None:
            self.chosen[name] = value

    def write(self) -> None:
        for name, value in self.chosen.items():
            self.config[name] = value


def named_in(args: list[str]) -> set[str]:
    """Options that stand on a command line or in its settings files, and what they are parts of."""
    found = set[str]()
    for flag, value in zip(args, [*args[1:], ""], strict=False):
        name, _, joined = flag.partition("=")
        if name in ("--config", "-c"):
            path = Path(expand(joined or value))
            settings = yaml.safe_load(path.read_text("utf-8")) if path.is_file() else None
            found |= set(_dotted(settings or {}))
        elif name.startswith("--"):
            parts = name.removeprefix("--").removesuffix("+").split(".")
            found |= {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
    return found


def _dotted(settings: dict[str, Any], before: str = "") -> Iterator[str]:
    for key, value in settings.items():
        yield f"{before}{key}"
        if isinstance(value, dict):
            yield from _dotted(value, f"{before}{key}.")
