"""The `data` command: a table of verbs, each in a file of its own."""

import sys
from importlib import import_module

from lightning_embed.processes import command

VERBS = {
    "show": "lightning_embed.commands.data_show:show",
    "list": "lightning_embed.commands.data_list:list_kept",
    "verify": "lightning_embed.commands.data_verify:verify",
    "clean": "lightning_embed.commands.data_clean:clean",
}


def data(args: list[str]) -> int | None:
    """Look at the text of a run before it; list, check and remove prepared tokens."""
    if args and args[0] in ("-h", "--help"):
        print(f"usage: {command('data')} {'|'.join(VERBS)} [options]\n\n{data.__doc__}")
        return 0
    if not args or args[0] not in VERBS:
        asked = f"no command 'data {args[0]}'; " if args else ""
        print(f"error: {asked}give one of {', '.join(VERBS)}", file=sys.stderr)
        return 2
    module, _, name = VERBS[args[0]].partition(":")
    result: int | None = getattr(import_module(module), name)(args[1:])
    return result
