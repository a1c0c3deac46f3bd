"""`data verify`: whether tokens that are kept are those that were written."""

from lightning_embed.bar import bar
from lightning_embed.commands.data_options import Parser, kept_under, line
from lightning_embed.console import say


def verify(args: list[str]) -> int:
    """Read all files of prepared tokens and compare their checksums; status 1 if any is damaged."""
    parser = Parser("verify", verify.__doc__ or "")
    parser.add_argument("keys", metavar="KEY", nargs="*", help="or its beginning (default: all)")
    options = parser.parse_args(args)
    with bar("reading"):
        found = [
            k for k in kept_under(options, options.keys, thorough=True) if k.state != "unfinished"
        ]
    damaged = [kept for kept in found if kept.state == "damaged"]
    for kept in damaged:
        say("damaged", line(kept))
    whole = sum(kept.state == "whole" for kept in found)
    say("verified", f"{whole} whole, {len(damaged)} damaged")
    return 1 if damaged else 0
