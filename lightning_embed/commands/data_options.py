"""Options of the verbs that look at kept tokens, and how one of them is told."""

import argparse
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from lightning_embed.console import short
from lightning_embed.errors import UserError
from lightning_embed.processes import command
from lightning_embed.tokens.kept import Kept, kept_in
from lightning_embed.tokens.prepared import default_cache_dir

LEAST_OF_KEY = 4  # digits of a key that name it, as what is removed must not be a slip


class Parser(argparse.ArgumentParser):
    """Tells a mistake in one line."""

    def __init__(self, verb: str, description: str) -> None:
        self.verb = verb
        super().__init__(prog=command(f"data {verb}"), description=description, allow_abbrev=False)
        self.add_argument(
            "--data.cache_dir",
            dest="cache_dir",
            metavar="FOLDER",
            help="of prepared tokens (default: as fit has it)",
        )

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"error: {message}; see {self.prog} --help\n")
        self.exit(2)


def cache_dir(options: argparse.Namespace) -> Path:
    """The folder that is meant."""
    given = options.cache_dir
    return Path(os.path.expandvars(os.path.expanduser(given))) if given else default_cache_dir()


def kept_under(options: argparse.Namespace, keys: list[str], thorough: bool = False) -> list[Kept]:
    """What is kept under these keys, or their beginnings; all of it where there are none.

    Raises:
        UserError: nothing is, or a beginning is short or of several.
    """
    folder = cache_dir(options)
    found = kept_in(folder, thorough)
    for key in keys:
        meant = sorted({kept.key for kept in found if kept.key.startswith(key)})
        if not meant:
            raise UserError(f"no tokens with the key {key} in {folder}: see `data list`")
        if len(key) < LEAST_OF_KEY:
            raise UserError(f"the key {key} is too short: give at least {LEAST_OF_KEY} digits")
        if len(meant) > 1:
            raise UserError(f"several keys begin with {key}: {', '.join(meant)}; give more digits")
    return [kept for kept in found if not keys or any(kept.key.startswith(key) for key in keys)]


def line(kept: Kept) -> str:
    """One of them for the screen, in parts with wide gaps, where lines are cut."""
    parts = [
        kept.key,
        f"{short(kept.bytes)}B",
        f"used {_day(kept.used)}",
        f"made {_day(kept.made)}",
    ]
    if kept.report:
        tokens = sum(split.tokens for split in kept.report.splits.values())
        parts += [f"{short(tokens)} tokens", f"{kept.report.vocabulary:,} ids", kept.report.title]
    if kept.problem:
        parts.append(kept.problem)
    return "  ".join(parts)


def total_of(found: list[Kept]) -> str:
    """`1.2 MB in 3 folders`."""
    size = short(sum(kept.bytes for kept in found))
    return f"{size if ' ' in size else f'{size} '}B in {len(found)} folder{'s'[len(found) == 1 :]}"


def facts(kept: Kept) -> dict[str, Any]:
    """The same for JSON."""
    report = kept.report
    return {
        "key": kept.key,
        "path": str(kept.path),
        "state": kept.state,
        "problem": kept.problem or None,
        "bytes": kept.bytes,
        "made": kept.made,
        "used": kept.used,
        "title": report.title if report else None,
        "vocabulary": report.vocabulary if report else None,
        "tokens": {name: s.tokens for name, s in report.splits.items()} if report else None,
    }


def _day(time: float) -> str:
    return f"{datetime.fromtimestamp(time):%Y-%m-%d %H:%M}"
