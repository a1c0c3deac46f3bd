"""The front door: one table of commands, a run assembled in plain sight, errors in one line.

Knows: which parts a run has and in what order, where its files go. Leaves to others: everything the
parts do.
"""

import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

BEGAN = time.perf_counter()

TRAINER_COMMANDS = {
    "fit": "train a model",
    "validate": "evaluate a checkpoint on the held-out text",
    "test": "the same, logged as test/...",
    "predict": "bits per byte of each held-out file, as a table",
}
OTHER_COMMANDS = {
    "generate": "continue a prompt with a trained checkpoint",
    "audit": "tell what somebody's model folder or checkpoint makes of padding",
    "consolidate": "put a checkpoint in shards together into one file",
    "tokenizer": "train a tokenizer, adopt a foreign one, or look at one",
}


def _usage() -> str:
    rows = {**TRAINER_COMMANDS, **OTHER_COMMANDS}.items()
    table = "\n".join(f"  {name:<10} {what}" for name, what in rows)
    return (
        "usage: python train.py COMMAND [options]\n\n"
        f"{table}\n\n"
        "python train.py fit --config configs/stdlib.yaml trains on the text of Python itself;\n"
        "python train.py COMMAND --help lists the options of a command."
    )


def main(args: list[str] | None = None) -> int:
    """Run a command; returns the exit status and never shows a traceback for a user's mistake."""
    arguments = sys.argv[1:] if args is None else list(args)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    command, rest = arguments[0], arguments[1:]
    before = _end_on_signals()
    try:
        if command in TRAINER_COMMANDS:
            from lightning_embed.commands.fit import EmbedCLI
            from lightning_embed.watching.curves import quiet_writer

            _quiet_libraries()
            quiet_writer()
            EmbedCLI(command, rest, began=BEGAN)
        elif command in OTHER_COMMANDS:
            return _typed_command(command, rest)
        else:
            from difflib import get_close_matches

            near = get_close_matches(command, [*TRAINER_COMMANDS, *OTHER_COMMANDS], n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            print(
                f"error: no command {command!r}{hint}; see python train.py --help", file=sys.stderr
            )
            return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if not _is_for_users(error) or os.environ.get("LIGHTNING_EMBED_TRACEBACK"):
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _end_on_signals() -> dict[int, Any]:
    """While text is prepared, a signal ends the program at the next batch, tidied up, with status
    128 + signal; training has handlers of its own. Returns those that were there before."""

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        return {}  # where Python lets nobody set one
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]
    return {number: signal.signal(number, leave) for number in numbers}


def _is_for_users(error: Exception) -> bool:
    """Mistakes in settings and files; anything else is a bug and keeps its traceback."""
    if isinstance(error, ValueError | OSError):
        return True
    names = ("PaddingVectorChanged", "Diverged", "MisconfigurationException")
    return type(error).__name__ in names


def _quiet_libraries() -> None:
    """No adverts, no advice about loaders that are not used; called after Lightning's import,
    which sets its own level."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # reports asked for
    for message in (
        ".*does not have many workers.*",
        ".*dataloader is not resumable.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*isinstance\\(treespec, LeafSpec\\).*",
        ".*number of training batches.*smaller than the logging interval.*",
        ".*is not supported for `.*` in `autocast`.*",
        ".*Please use the new API settings to control TF32.*",
        ".*`training_step` returned `None`.*",
        ".*could not find the monitored key.*",  # a run that ends before its first validation
        ".*`max_epochs` was not set.*",  # RunLength sets it once the text is known
        ".*The dirpath has changed from.*",
        ".*It is recommended to use .*sync_dist=True.*",
        ".*assuming the intent is to load in a single process.*",
    ):
        warnings.filterwarnings("ignore", message=message)


def _bare_flag(args: list[str], flag: str) -> list[str]:
    """`--json` alone for `--json true`, the only form a typed bool has."""
    pairs = zip(args, [*args[1:], ""], strict=False)
    alone = [arg == flag and after not in ("true", "false") for arg, after in pairs]
    return [f"{arg}=true" if bare else arg for arg, bare in zip(args, alone, strict=True)]


def _typed_command(command: str, args: list[str]) -> int:
    from jsonargparse import auto_cli

    from lightning_embed.commands.parser import OneLineParser

    function: Callable[..., int | None]
    if command == "generate":
        from lightning_embed.training.generate import generate as function
    elif command == "audit":
        from lightning_embed.audit.audit import audit as function

        args = _bare_flag(args, "--json")
    elif command == "consolidate":
        from lightning_embed.checkpointing.files import consolidate as function
    else:
        from lightning_embed.commands.tokenizer import tokenizer as function
    _quiet_libraries()
    status = auto_cli(
        function,
        args=args,
        as_positional=command == "audit",
        parser_class=OneLineParser,
        prog=f"train.py {command}",
    )
    return status or 0
