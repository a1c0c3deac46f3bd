"""The `data` command: each verb is in a file of its own."""

import sys

VERBS = {"show": "lightning_embed.commands.data_show:show"}


def data(args: list[str]) -> int | None:
    """Look at the text of a run before it."""
    from importlib import import_module

    if not args or args[0] not in VERBS:
        print(f"error: give one of {', '.join(VERBS)}", file=sys.stderr)
        return 2
    module, _, name = VERBS[args[0]].partition(":")
    return getattr(import_module(module), name)(args[1:])
