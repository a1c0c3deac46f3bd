"""A parser's mistakes in plain words: jsonargparse lists every type it tried, with every value.

One reason is enough, and for a class of Lightning's that is not there, the nearest name.
"""

import difflib
import inspect
import re
from functools import cache
from importlib import import_module
from typing import Any

LONGEST = 400  # characters of a mistake that is not known here

UNION = re.compile(
    r'Parser key "(?P<key>[\w.]+)": Does not validate against any of the Union subtypes'
    r" Subtypes: \[(?P<types>.*?)\] Errors: .*Given value: (?P<value>.*)$"
)
LINK = re.compile(r"Call to compute_fn of link .*? failed: ")  # what follows is our own words

KEY = re.compile(r'Parser key "(?P<key>[\w.]+)"')
EXPECTED = re.compile(
    r'Parser key "(?P<key>[\w.]+)": Expected an? <class \'(?P<types>[\w.]+)\'>\.'
    r" Got value: (?P<value>.*)$"
)
FAILED = re.compile(r"Problem with given class_path '(?P<path>[\w.]+)': (?P<why>.+)")
TYPES_TRIED = re.compile(r"^Does not validate .*? Errors: - (?P<why>.+)")
# What every type that was tried in vain says, and what is said of the value.
USUAL = (
    *("Expected a", "Not a valid", "Does not", "Import path", "Unable", "a class path", "a dict"),
    "Problem with",
)
VALUE = re.compile(r" (?:Given value|Subclass types) .*")
UNKNOWN = (
    re.compile(r"Expected a path but (?P<name>\S*?) ?either not accessible or invalid"),
    re.compile(r"'?class_path'?(?:, val=|: )'(?P<name>[\w.]+)'"),
    re.compile(r"Given value: \['(?P<name>[\w.]+)'\]$"),
)
ABSTRACT = "Expected an instantiatable class, but is abstract"
NO_OPTION = re.compile(r"^Option '(?P<name>\w+)' is not accepted$")
REQUIRED = re.compile(r"^the following arguments are required: (?P<name>\w+)$")

PIECES = {  # where the classes are that a trainer takes, by option
    "callbacks": "callbacks",
    "logger": "loggers",
    "plugins": "plugins",
    "profiler": "profilers",
    "strategy": "strategies",
}


def one_line(text: str) -> str:
    return " ".join(text.split())


def plain(message: str) -> str:
    """The message in one line: what was given where, what is wrong, and what can be given."""
    text = one_line(message)
    key = KEY.search(text)
    where = f"--{key['key']} " if key else ""
    if (found := FAILED.search(text)) and (reason := _reason(found["why"])):
        return f"{where}{found['path'].rpartition('.')[2]}: {reason}"
    if (found := TYPES_TRIED.search(text)) and (reason := _reason(found["why"])):
        return reason
    if key and key["key"].removeprefix("trainer.") in PIECES:
        name = next((found["name"] for each in UNKNOWN if (found := each.search(text))), None)
        if name is not None:
            return where + _no_piece(name, abstract=ABSTRACT in text)
    if found := NO_OPTION.search(text):
        return f"no class given here takes {found['name']}{nearest(found['name'], _arguments())}"
    if (found := REQUIRED.search(text)) and (owners := _who_requires(found["name"])):
        return f"{' or '.join(owners)} needs {found['name']}"
    text = LINK.sub("", EXPECTED.sub(_cannot_be, UNION.sub(_cannot_be, text)))
    return text if len(text) <= LONGEST else text[:LONGEST] + " ..."


def _reason(tried: str) -> str | None:
    """The first of a list of reasons that is not only that the value is of another type."""
    reasons = [VALUE.sub("", reason) for reason in tried.split(" - ")]
    return next((reason for reason in reasons if not reason.startswith(USUAL)), None)


def nearest(word: str, words: list[str]) -> str:
    """` (did you mean X?)`, or nothing when no word is near."""
    found = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f" (did you mean {found[0]}?)" if found else ""


def _cannot_be(found: re.Match[str]) -> str:
    """The types and the value are enough."""
    types = re.sub(r"<class '([^']+)'>", r"\1", found["types"]).replace("typing.Literal", "")
    return f"--{found['key']} cannot be {found['value']}: give {types.replace('NoneType', 'null')}"


def _no_piece(name: str, abstract: bool) -> str:
    short = name.rpartition(".")[2]
    if abstract or inspect.isabstract(pieces().get(short)):
        return f"{name}: the class is abstract, give one that is derived from it"
    if short in pieces():
        return f"{name}: it is of another kind than this option takes"
    return (
        f"{name}: no such class{nearest(short, list(pieces()))}; name one of your own by its path"
    )


@cache
def pieces() -> dict[str, Any]:
    """Lightning's classes that a trainer takes, by name."""
    found: dict[str, Any] = {}
    for room in PIECES.values():
        module = import_module(f"lightning.pytorch.{room}")
        found |= {name: getattr(module, name) for name in module.__all__}
    return found


def _parameters(piece: Any) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(piece.__init__).parameters)


def _arguments() -> list[str]:
    return sorted({name for piece in pieces().values() for name in _parameters(piece)} - {"self"})


def _who_requires(name: str) -> list[str]:
    """`--trainer.logger CSVLogger` for `save_dir`."""
    found = []
    for option, room in PIECES.items():
        for owner in import_module(f"lightning.pytorch.{room}").__all__:
            parameter = _parameters(pieces()[owner]).get(name)
            if parameter is not None and parameter.default is inspect.Parameter.empty:
                found.append(f"--trainer.{option} {owner}")
    return found
