"""A command-line parser that answers a mistake with one line.

Knows: how to find the key a person mistyped and the nearest one there is. Leaves to others: which
arguments there are (`cli.py`).
"""

import difflib
import re
import sys
from typing import NoReturn

from lightning.pytorch.cli import LightningArgumentParser

UNKNOWN = re.compile(
    r"unrecognized arguments: --(?P<flag>[^\s=]+)"
    r"|does not accept (?:nested key|option) '(?P<option>[^']+)'"
    r"|[Kk]ey \"?'?(?P<key>[\w.]+)\"?'? is not expected"
)


def nearest(word: str, words: list[str]) -> str:
    """` (did you mean X?)`, or nothing when no word is near."""
    found = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f" (did you mean {found[0]}?)" if found else ""


def one_line(text: str) -> str:
    return " ".join(text.split())


class OneLineParser(LightningArgumentParser):
    """Prints `error: ...` without the usage and exits with status 2."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        parser = getattr(ex, "subcommand_parser", None) or self
        known = [action.dest for action in parser._actions if action.dest not in ("help", "config")]
        hint = ""
        if match := UNKNOWN.search(message):
            key = next(group for group in match.groups() if group)
            hint = nearest(key, known)
        text = one_line(message)
        if len(text) > 400:
            text = text[:400] + " ..."
        sys.stderr.write(f"error: {text}{hint}\n")
        self.exit(2)
