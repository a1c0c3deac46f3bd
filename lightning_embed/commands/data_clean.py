"""`data clean`: removes tokens that are kept, after saying which and how much."""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from lightning_embed.checkpointing.run_json import ROOT, run_name
from lightning_embed.commands.data_options import Parser, kept_under, line, total_of
from lightning_embed.console import say
from lightning_embed.errors import UserError, require_range
from lightning_embed.tokens.kept import Kept, drop, users

DAY = 86_400


def clean(args: list[str]) -> None:
    """Remove damaged and unfinished tokens, or those that the options name; never any in use."""
    options = _parser().parse_args(args)
    require_range("--older_than", options.older_than, at_least=0)
    chosen = [kept for kept in kept_under(options, options.key) if _is_meant(kept, options)]
    removable = []
    for kept in chosen:
        by = users(kept.path)
        if by or kept.state == "in the making":
            who = f"process {by[0]}" if by else "another process"
            say("in use", f"{kept.key} is used by {who} and stays")
        else:
            removable.append(kept)
            say("remove", line(kept))
    keys = {kept.key for kept in removable}
    for name, key in _needed(options.runs):
        if key in keys:
            say("needed", f"{key} by run {name}: going on makes it anew, if its text is unchanged")
    total = total_of(removable)
    if not removable or options.dry_run:
        say("clean", f"{total} to remove")
        return
    if not options.yes and not _agreed(total):
        say("kept", "nothing was removed")
        return
    for kept in removable:
        drop(kept)
    say("removed", total)


def _parser() -> argparse.ArgumentParser:
    parser = Parser("clean", clean.__doc__ or "")
    parser.add_argument(
        "--key",
        metavar="KEY",
        action="append",
        default=[],
        help="or its beginning; may be repeated",
    )
    parser.add_argument(
        "--older_than", metavar="DAYS", type=float, help="all that was not used for so long"
    )
    parser.add_argument("--all", action="store_true", help="all tokens")
    parser.add_argument("--dry_run", action="store_true", help="only say what would be removed")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--runs",
        metavar="FOLDER",
        type=Path,
        default=ROOT,
        help="of runs that may still need tokens (default: runs)",
    )
    return parser


def _is_meant(kept: Kept, options: argparse.Namespace) -> bool:
    if options.older_than is not None:
        return kept.used < time.time() - options.older_than * DAY
    return bool(options.all or options.key) or kept.state in ("damaged", "unfinished")


def _agreed(total: str) -> bool:
    if not sys.stdin.isatty():
        raise UserError("nothing was removed: give --yes to remove, as there is nobody to ask")
    return input(f"Remove {total}? [y/N] ").strip().lower() in ("y", "yes")


def _needed(root: Path) -> Iterator[tuple[str, str]]:
    """Names of runs that can be gone on with, and the keys of their data."""
    checkpoints = sorted(root.glob("*/checkpoints/last.ckpt"))
    if not checkpoints:
        return
    from lightning_embed.checkpointing.files import read_header

    for path in checkpoints:
        try:
            key = read_header(path)["TextDataModule"]["data"]
        except (UserError, LookupError, TypeError, OSError):  # damaged, or not one of ours
            continue
        yield run_name(path.parent.parent), key
