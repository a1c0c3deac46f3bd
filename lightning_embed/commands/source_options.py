"""Options of several texts on the command line: `--data.sources.books.files books/`.

They change single options of sources that a file of settings may name, which the parser cannot, as
it takes a source for one value.
"""

import re
from typing import Any

import yaml

from lightning_embed.commands.parser import PATHS, expand

OPTION = re.compile(r"--data\.sources\.(?P<source>[^.=]+)\.(?P<option>[^=+]+)\+?(=(?P<value>.*))?")

Typed = dict[str, dict[str, Any]]  # by source, then by option


def part(args: list[str]) -> tuple[list[str], Typed]:
    """The arguments without such options, and these; several words, and an option that comes
    again, make a list."""
    rest, typed = list[str](), Typed()
    words = list(reversed(args))
    while words:
        word = words.pop()
        found = OPTION.fullmatch(word)
        if found is None:
            rest.append(word)
            continue
        values = [] if found["value"] is None else [found["value"]]
        while not values or (found["value"] is None and words and not words[-1].startswith("-")):
            if not words:  # nothing is given: the option is empty, which is refused
                values.append("null")
                break
            values.append(words.pop())
        its = typed.setdefault(found["source"], {})
        for value in map(yaml.safe_load, values):
            before = its.get(found["option"])
            its[found["option"]] = value if before is None else [*_listed(before), *_listed(value)]
    return rest, typed


def merged(sources: dict[str, Any] | None, typed: Typed) -> dict[str, Any] | None:
    """Sources of the settings, with the options of the command line."""
    if not typed:
        return sources
    found = dict(sources or {})
    for name, options in typed.items():
        before = found.get(name)
        found[name] = {**(before if isinstance(before, dict) else {}), **options}
    return found


def put_into(data: Any, typed: Typed) -> None:
    """Put them into the parsed settings of data, with paths as a shell would have them."""
    if sources := merged(data.sources, typed):
        data.sources = with_paths(sources)


def with_paths(sources: dict[str, Any]) -> dict[str, Any]:
    """The same, with `~` and variables in paths as a shell would replace them."""
    return {
        name: {key: expand(value) if key in PATHS else value for key, value in options.items()}
        if isinstance(options, dict)
        else options
        for name, options in sources.items()
    }


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
