"""In which settings runs differ.

Settings that only one version knows, and those that say where things lie, are left out.
"""

from pathlib import Path
from typing import Any

import yaml

PLACES = {  # names and places, not how a run trains
    *("name", "config", "ckpt_path", "weights_only", "minutes"),
    *("trainer.default_root_dir", "trainer.logger", "data.cache_dir"),
}
OURS = ("model", "data", "trainer")  # sections of every `config.yaml` of ours, shown first


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings that a run was started with, or those of its latest resume.

    Raises:
        ValueError: the file does not parse, or is of another tool.
        OSError: it is missing, or must not be read.
    """
    later = sorted(folder.glob("config-resume-*.yaml"), key=lambda path: (len(path.name), path))
    path = [folder / "config.yaml", *later][-1]
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError:
        raise ValueError(f"{path.name} does not parse") from None
    if not isinstance(found, dict) or not all(isinstance(found.get(key), dict) for key in OURS):
        raise ValueError(f"{path.name} is not a run's")
    return found


def differing(all_settings: list[dict[str, Any]]) -> list[str]:
    """Dotted names of the settings that are not the same in all of these."""
    names: dict[str, None] = {}
    for settings in all_settings[1:]:
        names |= dict.fromkeys(_differences(all_settings[0], settings))
    return sorted(names, key=_place)


def changed(first: dict[str, Any], settings: dict[str, Any]) -> dict[str, str]:
    """What a run has other than the first one, by dotted names."""
    names = sorted(_differences(first, settings), key=_place)
    return {name: written(setting(settings, name)) for name in names}


def setting(settings: dict[str, Any], name: str) -> Any:
    """The value under a dotted name; None where there is none."""
    found: Any = settings
    for key in name.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found


def written(value: Any) -> str:
    """A value in a few words, as it would stand on the command line."""
    if isinstance(value, dict) and "class_path" in value:
        return str(value["class_path"]).rpartition(".")[2]
    if isinstance(value, list):
        return ",".join(written(each) for each in value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _differences(one: dict[str, Any], other: dict[str, Any], above: str = "") -> list[str]:
    found = []
    for key in one.keys() & other.keys():
        name, mine, theirs = f"{above}{key}", one[key], other[key]
        if name in PLACES or mine == theirs:
            continue
        sections = isinstance(mine, dict) and isinstance(theirs, dict)
        if sections and "class_path" not in mine.keys() | theirs.keys():
            found += _differences(mine, theirs, f"{name}.")
        else:
            found.append(name)
    return found


def _place(name: str) -> tuple[int, str]:
    section = name.partition(".")[0]
    return OURS.index(section) if section in OURS else len(OURS), name
