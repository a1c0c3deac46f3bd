"""The front door: one table of commands, each imported when it is asked for, errors in one line."""

import ast
import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning_embed import console, processes
from lightning_embed.errors import TrainingStopped, UserError, one_line
from lightning_embed.interrupts import Ended, leave, name_of

# A command is a function whose parameters are its options, or one of `args`, the rest of the
# command line, where Lightning's parser reads that. The first line of its docstring is its help.
COMMANDS = {
    "fit": "lightning_embed.commands.fit:fit",
    "validate": "lightning_embed.commands.evaluate:validate",
    "test": "lightning_embed.commands.evaluate:test",
    "predict": "lightning_embed.commands.evaluate:predict",
    "generate": "lightning_embed.commands.generate:generate",
    "audit": "lightning_embed.commands.audit:audit",
    "export": "lightning_embed.commands.export:export",
    "consolidate": "lightning_embed.commands.consolidate:consolidate",
    "tokenizer": "lightning_embed.commands.tokenizer:tokenizer",
    "runs": "lightning_embed.commands.runs:runs",
    "data": "lightning_embed.commands.data:data",
    "version": "lightning_embed.commands.version:version",
}

REPORT = (
    "bug: this is a fault of lightning_embed, not of yours; please report it with the traceback"
    " below, the command line, the run's config.yaml, and what `{version}` prints"
)


def main(args: list[str] | None = None) -> int:
    """Run a command; returns the exit status and never shows a traceback for a user's mistake."""
    arguments = sys.argv[1:] if args is None else list(args)
    console.prepare()
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    command, rest = arguments[0], arguments[1:]
    if "--version" in arguments[:2] or command == "-V":  # `fit --version` too
        command, rest = "version", []
    if command not in COMMANDS:
        return _unknown(command)
    before = _end_on_signals()
    try:
        return _run(command, rest) or 0
    except KeyboardInterrupt:
        return 130
    except Ended as end:
        if command in ("fit", "tokenizer") and not end.told:
            console.say("stopped", f"by {name_of(end)}")
        if end.goes_on:
            console.say_command("go on", processes.command_of_all(*arguments))
        raise
    except BrokenPipeError:  # the reader, such as head, has seen enough
        console.mute()
        return 1
    except Exception as error:
        if not _is_for_users(error):
            print(REPORT.format(version=processes.command("--version")), file=sys.stderr)
            raise
        if os.environ.get("LIGHTNING_EMBED_TRACEBACK"):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(command: str, args: list[str]) -> int | None:
    module, _, name = COMMANDS[command].partition(":")
    try:
        function: Callable[..., int | None] = getattr(import_module(module), name)
    except ModuleNotFoundError as error:  # another Python, or nothing installed yet
        if (error.name or "").startswith(__package__):
            raise
        root = Path(__file__).parent.parent
        checkout = (root / "pyproject.toml").is_file()
        install = processes.install_command(*(["-e", root] if checkout else [__package__]))
        raise UserError(f"this Python has no {error.name}: install with `{install}`") from None
    if list(inspect.signature(function).parameters) == ["args"]:
        return function(args)
    from lightning_embed.commands.parser import call_with_options

    return call_with_options(function, args, prog=processes.command(command))


def _unknown(command: str) -> int:
    from difflib import get_close_matches

    near = get_close_matches(command, list(COMMANDS), n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    print(
        f"error: no command {command!r}{hint}; see {processes.command('--help')}", file=sys.stderr
    )
    return 2


def _usage() -> str:
    table = "\n".join(f"  {name:<11} {_help(target)}" for name, target in COMMANDS.items())
    program = processes.command()
    return (
        f"usage: {program} COMMAND [options]\n\n"
        f"{table}\n\n"
        f"{program} fit --config stdlib trains on the text of Python itself;\n"
        f"{program} COMMAND --help lists the options of a command."
    )


def _help(target: str) -> str:
    """The first sentence of a command's docstring, read without importing what it needs."""
    module, _, name = target.partition(":")
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None, target
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    function = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)
    return (ast.get_docstring(function) or "").partition(".\n")[0].rstrip(".")


def _end_on_signals() -> dict[int, Any]:
    """Until training has handlers of its own, a signal ends the program tidied up, with status
    128 + signal; Ctrl-C too, which Lightning would turn into 1. Returns the handlers before."""

    if threading.current_thread() is not threading.main_thread():
        return {}  # where Python lets nobody set one
    return {number: signal.signal(number, leave) for number in processes.stop_signals()}


def _is_for_users(error: Exception) -> bool:
    """Mistakes in settings and files, what stopped training, and what Lightning calls a
    misconfiguration; anything else is a bug and keeps its traceback."""
    if isinstance(error, UserError | TrainingStopped | OSError):
        return True
    return type(error).__name__ == "MisconfigurationException"
