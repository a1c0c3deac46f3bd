"""Which text is meant where a configuration names one and the command line another.

`TextDataModule` takes one of `files`, `hub` and `source`. Of what stands in files of settings the
later counts, and the command line before all of them, as with any option.
"""

from pathlib import Path
from typing import Any

import yaml

from lightning_embed.commands.parser import expand
from lightning_embed.console import say

TEXTS = ("files", "hub", "source")
OPTIONS_OF = {  # what concerns one kind of text alone, and what it is when not given
    "files": {"format": None, "document": "file", "separator": None},
    "hub": {"hub_config": None, "hub_split": "train", "hub_revision": None, "hub_streaming": None},
}


def prefer_later_text(args: list[str], data: Any) -> None:
    """Unset, in the parsed settings `data`, texts that an earlier place names; each is said.

    Two in one place are left to `TextDataModule`, which refuses them.
    """
    named_in: dict[str, str] = {}
    typed, in_last_file = set[str](), set[str]()
    for flag, value in zip(args, [*args[1:], ""], strict=True):
        name, _, joined = flag.partition("=")
        if name in ("--config", "-c"):
            found = _texts_of(joined or value)
            in_last_file = found or in_last_file
            named_in.update(dict.fromkeys(found, joined or value))
        elif name.startswith("--data."):
            typed.add(name.split(".")[1].removesuffix("+"))
    given = {text for text in TEXTS if data[text]}
    meant = given & typed or given & in_last_file
    if len(meant) != 1:
        return
    (used,) = meant
    for other in sorted(given - meant):
        if other not in named_in:
            continue
        say(
            "note",
            f"--data.{used} {_shown(data[used])} is used instead of --data.{other}"
            f" {_shown(data[other])} of {named_in[other]}",
        )
        data[other] = None
        for option, default in OPTIONS_OF.get(other, {}).items():
            if option not in typed:
                data[option] = default


def _texts_of(path: str) -> set[str]:
    """Those that a file of settings names."""
    file = Path(expand(path))
    settings = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None
    data = (settings or {}).get("data") or {}
    return {text for text in TEXTS if data.get(text)}


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(getattr(value, "class_path", value))
