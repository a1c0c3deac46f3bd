"""A command-line parser that answers a mistake with one line, and functions called by it."""

import inspect
import math
import os
import re
import sys
from collections.abc import Callable
from enum import Enum
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, Namespace

from lightning_embed.commands.quiet import quiet_libraries
from lightning_embed.commands.wording import nearest, plain
from lightning_embed.errors import UserError
from lightning_embed.inference.arguments import require_text
from lightning_embed.library_internals import option_names

UNKNOWN = re.compile(
    r"unrecognized arguments: --(?P<flag>[^\s=]+)"
    r"|does not accept (?:nested key|option) '(?P<option>[^']+)'"
    r"|[Kk]ey \"?'?(?P<key>[\w.]+)\"?'? is not expected"
)
REQUIRED = re.compile(r"arguments are required: (?P<names>.+)$")

RENAMED = {  # in 0.2
    "model.matrix_lr": "model.muon_lr",
    "model.rope_base": "model.rope_theta",
    "model.decay_share": "model.decay_fraction",
    "model.final_share": "model.final_fraction",
}

# Options that name files and folders, by the last part of their names: `~` and `$VARIABLES` in them
# mean what a shell makes of them, also in a YAML file and behind `--option=`.
PATHS = {
    *("adopt", "against", "cache_dir", "checkpoint", "ckpt_path", "default_root_dir", "files"),
    *("hub", "dirpath", "init_from", "output", "path", "prompts", "save_dir", "show", "tokenizer"),
    "validation",
}

SECTIONS = {  # of a file of settings
    *("model", "data", "trainer", "checkpoints", "early_stopping"),
    *("padding_guard", "loss_watch", "samples"),
}

SWITCHES = {"--json", "--data.decontaminate"}  # may stand without `true`, where they are options
LISTS = ("--data.files", "--data.validation", "--files", "--model.freeze", "--prompt", "--stop")
LITERAL = ("--prompt", "--stop")  # of these, what is always one string: "[a, b]", "null", "- a"
ONE_EACH = ("--prompt",)  # of these, what takes one value each time: no unquoted words


def settings_files_first(args: list[str]) -> list[str]:
    """The same arguments with every `--config FILE` moved to the front, so that a setting on the
    command line wins over a file wherever it stands: the parser applies them in order."""
    files, others = _parted(args)
    return files + others


def settings_on_command_line(args: list[str]) -> list[str]:
    """The same arguments without `--config FILE`."""
    return _parted(args)[1]


def _parted(args: list[str]) -> tuple[list[str], list[str]]:
    """Every `--config FILE`, and all else."""
    files, others = list[str](), list[str]()
    rest = iter(args)
    for arg in rest:
        name, joined, _ = arg.partition("=")
        if name in ("--config", "-c"):
            files += [arg] if joined else [arg, *islice(rest, 1)]
        else:
            others.append(arg)
    return files, others


def require_settings_files(args: list[str]) -> None:
    """Refuse a --config file that holds no settings, by name (UserError).

    Others are left to the parser, which does not say in which file it found a mistake.
    """
    for flag, value in pairwise([*args, ""]):
        name, _, joined = flag.partition("=")
        path = Path(expand(joined or value))
        if name not in ("--config", "-c") or not path.is_file():
            continue
        try:
            settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{path} does not parse as YAML: {error}") from None
        if not isinstance(settings, dict):
            raise UserError(f"{path} holds no settings; write for example `data:` and lines below")
        for key, section in settings.items():
            if key in SECTIONS and not isinstance(section, dict):
                found = "empty" if section is None else repr(section)
                raise UserError(f"{path}: {key} is {found}, but needs settings below it")


def add_up_lists(args: list[str]) -> list[str]:
    """`--data.files a --data.files b` means both, as does `--data.files a b`, which a shell makes
    of `--data.files *.txt`; written as the parser has it, `--data.files=a --data.files+=b`."""
    found, seen, taking = list[str](), set[str](), ""

    def take(name: str, value: str) -> None:
        if name in LITERAL:
            require_text(name, value)  # else the parser would take the YAML for the string
            value = yaml.safe_dump([value], default_flow_style=True, width=math.inf).rstrip()
        further = name in seen and value != "null"  # which begins anew
        found.append(f"{name}{'+' if further else ''}={value}")
        seen.add(name)

    def is_value(name: str, arg: str) -> bool:
        return not arg.startswith("-") or (name in LITERAL and " " in arg)

    for arg, after in zip(args, [*args[1:], "-"], strict=False):
        name, equals, value = arg.partition("=")
        if taking and is_value(taking, arg):
            take(taking, arg)
            taking = "" if taking in ONE_EACH else taking
            continue
        taking = ""
        if name in LISTS and equals:
            take(name, value)
        elif name in LISTS and is_value(name, after):
            taking = name
        else:
            found.append(arg)
    return found


def expand(value: Any) -> Any:
    """A path or a list of them with `~` and variables as a shell would replace them."""
    if isinstance(value, str):
        return os.path.expandvars(os.path.expanduser(value))
    return [expand(each) for each in value] if isinstance(value, list) else value


def expand_paths(options: Any) -> None:
    """Do so, in place, for every option of `PATHS`."""
    for name in list(options.keys()):  # of nested ones too, with dots between
        if name.rpartition(".")[2] in PATHS:
            options[name] = expand(options[name])
        elif isinstance(options[name], list):
            for each in options[name]:
                if isinstance(each, Namespace):  # a class with its arguments
                    expand_paths(each)


def name_enums(options: Any) -> None:
    """Replace, in place, defaults that are members of an enumeration by their plain values: a
    file of settings cannot hold others."""
    for name in list(options.keys()):
        value = options[name]
        if isinstance(value, Enum):
            options[name] = value.value
        elif isinstance(value, list):
            for each in value:
                if isinstance(each, Namespace):
                    name_enums(each)


class OneLineParser(ArgumentParser):
    """Prints `error: ...` without the usage and exits with status 2.

    `commands/fit.py` joins it with Lightning's, whose import takes seconds.
    """

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        parser = getattr(ex, "subcommand_parser", None) or self
        known = [name for name in option_names(parser) if name not in ("help", "config")]
        hint = ""
        if match := UNKNOWN.search(message):
            key = next(group for group in match.groups() if group)
            hint = f" (it is {RENAMED[key]} now)" if key in RENAMED else nearest(key, known)
        sys.stderr.write(f"error: {plain(message)}{hint}\n")
        self.exit(2)


class FunctionParser(OneLineParser):
    """Of a function, whose parameters without a default must be given."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if found := REQUIRED.search(message):
            flags = [n if n == "path" else f"--{n}" for n in found["names"].split(", ")]
            message = f"{' and '.join(flags)} must be given"
        super().error(message, ex)


def call_with_options(
    function: Callable[..., int | None], args: list[str], prog: str
) -> int | None:
    """Call a function with options named like its parameters, types and help from its signature
    and docstring. A parameter called `path` stands on the command line without its name."""
    from jsonargparse import auto_parser

    parameters = inspect.signature(function).parameters
    switches = {f"--{name}" for name, p in parameters.items() if p.annotation is bool}
    parser = auto_parser(
        function,
        as_positional="path" in parameters,
        parser_class=FunctionParser,
        prog=prog,
        description=(inspect.getdoc(function) or "").partition("\n")[0],
    )
    quiet_libraries()
    options = parser.parse_args(with_values(add_up_lists(args), switches))
    expand_paths(options)
    return function(**{name: options[name] for name in parameters})


def with_values(args: list[str], switches: set[str]) -> list[str]:
    """`--json` alone for `--json true`, the only form a typed bool has."""
    pairs = zip(args, [*args[1:], ""], strict=False)
    return [
        f"{arg}=true" if arg in switches and after not in ("true", "false") else arg
        for arg, after in pairs
    ]
