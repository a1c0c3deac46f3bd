"""The `runs` command: lists runs, sorts them, and draws their curves over each other on a page.

Nothing of it imports torch or Lightning, so it starts at once.
"""

import argparse
import sys
from json import dumps
from pathlib import Path
from typing import NoReturn

from lightning_embed.atomic import replacing
from lightning_embed.checkpointing.run_json import ROOT
from lightning_embed.comparing.page import page
from lightning_embed.comparing.record import Record, read_runs
from lightning_embed.comparing.table import COLUMNS, SETTINGS, is_column, lines, row, sort_runs
from lightning_embed.console import columns, printable, say
from lightning_embed.errors import UserError, writing

MOST_SKIPPED = 10  # folders that are named


def runs(args: list[str]) -> None:
    """List runs and compare their figures, settings and curves."""
    options = _parser().parse_args(args)
    tell(options.folders or [ROOT], options.sort, options.reverse, options.json, options.html)


def tell(
    folders: list[Path], sort: str | None, reverse: bool, json: bool, html: Path | None
) -> None:
    """Print the runs in these folders, and write the page that compares them.

    Raises:
        UserError: there is no run, no such column, or the page cannot be written.
    """
    if html is not None and (html.suffix not in (".html", ".htm") or html.is_dir()):
        raise UserError(f"--html {html} must be a file whose name ends with .html")
    found, skipped = read_runs(folders)
    for folder, why in skipped[:MOST_SKIPPED]:
        print(f"skipped  {printable(str(folder))}: {why}", file=sys.stderr)
    if len(skipped) > MOST_SKIPPED:
        print(f"skipped  {len(skipped) - MOST_SKIPPED} more folders", file=sys.stderr)
    if not found:
        raise UserError(
            f"no run in {', '.join(printable(str(x)) for x in folders)}; give the folder of a run"
            " or of runs, such as fit's --trainer.default_root_dir"
        )
    if sort is None and all(run.folder in folders for run in found):
        ordered = found[::-1] if reverse else found  # as they were given
    else:
        ordered = _sorted(found, sort or "started", reverse != (sort is None))
    if json:
        print(dumps([row(run, ordered[0]) for run in ordered], indent=2, allow_nan=False))
    else:
        print("\n".join(lines(ordered, columns())))
    if html is not None:
        with writing(html.parent, "--html"), replacing(html) as file:
            file.write_text(page(ordered), encoding="utf-8")
        if not json:
            say("written", str(html))


def _sorted(found: list[Record], sort: str, reverse: bool) -> list[Record]:
    if not is_column(sort, found):
        names = ", ".join([*COLUMNS, SETTINGS])
        raise UserError(f"--sort {sort} is no column: give {names} or a setting such as model.lr")
    return sort_runs(found, sort, reverse)


class _Parser(argparse.ArgumentParser):
    """Tells a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"error: {message}; see train.py runs --help\n")
        self.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="train.py runs",
        description="List runs and compare their figures, settings and curves. The settings shown"
        " are those in which a run differs from the first.",
    )
    parser.add_argument(
        "folders",
        metavar="FOLDER",
        nargs="*",
        type=_path,
        help="of a run or of several (default: runs)",
    )
    names = ", ".join([*COLUMNS, SETTINGS])
    parser.add_argument(
        "--sort",
        metavar="COLUMN",
        help=f"{names}, or a setting such as model.lr; without it the latest comes first, or runs"
        " stand as they are given",
    )
    parser.add_argument("--reverse", action="store_true", help="sort descending")
    parser.add_argument("--json", action="store_true", help="a JSON array instead of a table")
    parser.add_argument(
        "--html", metavar="FILE", type=_path, help="write a page that compares the runs"
    )
    return parser


def _path(text: str) -> Path:
    return Path(text).expanduser()
