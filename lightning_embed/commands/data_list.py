"""`data list`: which tokens are kept."""

import json

from lightning_embed.commands.data_options import (
    Parser,
    cache_dir,
    facts,
    kept_under,
    line,
    total_of,
)
from lightning_embed.console import say


def list_kept(args: list[str]) -> None:
    """List the prepared tokens that are kept, the latest used first."""
    parser = Parser("list", list_kept.__doc__ or "")
    parser.add_argument("--json", action="store_true", help="a JSON array")
    options = parser.parse_args(args)
    found = kept_under(options, [])
    if options.json:
        print(json.dumps([facts(kept) for kept in found], indent=2))
        return
    for kept in found:
        say(kept.state if len(kept.state) < 9 else f"{kept.state} ", line(kept))
    say("in all", f"{total_of(found)} of {cache_dir(options)}")
