"""`data show`: what a run will see of its text, before it.

Takes the settings of `fit` that are about data; of a settings file the others are left alone.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile

from lightning_embed.commands import source_options
from lightning_embed.commands.parser import (
    SWITCHES,
    OneLineParser,
    add_up_lists,
    expand,
    expand_paths,
    require_settings_files,
    settings_files_first,
    with_values,
)
from lightning_embed.commands.quiet import quiet_libraries
from lightning_embed.commands.shipped_configs import with_shipped_configs
from lightning_embed.commands.text_choice import prefer_later_text
from lightning_embed.errors import require_range
from lightning_embed.processes import command

OWN = ("data", "seed_everything")  # settings of a file that matter here


def show(args: list[str]) -> None:
    """Show what a run will see of its text: documents, a batch, lengths, padding, copies, ids."""
    args = settings_files_first(with_shipped_configs(args))
    require_settings_files(args)
    quiet_libraries()
    parser = _parser()
    others, typed = source_options.part(_of_data_alone(args))
    options = parser.parse_args(with_values(add_up_lists(others), SWITCHES))
    source_options.put_into(options.data, typed)
    require_range("--documents", options.documents, at_least=0)
    require_range("--draw", options.draw, at_least=0)
    require_range("--step", options.step, at_least=1)
    with _lines_aside(options.json) as out:
        prefer_later_text(args, options.data)
        expand_paths(options)
        options.data.seed = options.seed_everything
        look(parser, options, out)


def look(parser: OneLineParser, options: Any, out: Any) -> None:
    """Find everything out, and print it."""
    from lightning_embed.inspecting.facts import facts
    from lightning_embed.inspecting.page import tell

    data = parser.instantiate_classes(options).data
    found = facts(data, documents=options.documents, draw=options.draw, step=options.step)
    if options.json:
        print(json.dumps(found.as_json(), allow_nan=False, ensure_ascii=False), file=out)
    else:
        tell(found)


@contextmanager
def _lines_aside(wanted: bool) -> Iterator[Any]:
    """Beside JSON, lines for a person go to standard error; yields where JSON goes."""
    out = sys.stdout
    with ExitStack() as shown:
        if wanted:
            shown.enter_context(redirect_stdout(sys.stderr))
        yield out


def _parser() -> OneLineParser:
    from lightning_embed.data.datamodule import TextDataModule

    parser = OneLineParser(
        prog=command("data", "show"),
        description="Show what a run will see of its text, with the data settings of `fit`.",
    )
    parser.add_argument(
        "--config", "-c", action=ActionConfigFile, help="A file of settings, as for fit."
    )
    parser.add_argument("--documents", type=int, default=2, help="Training documents to show.")
    parser.add_argument(
        "--draw",
        type=int | None,
        default=None,
        help="Draw these documents with this seed; unset, the first ones.",
    )
    parser.add_argument("--step", type=int, default=1, help="The step whose batch is shown.")
    parser.add_argument(
        "--json", type=bool, default=False, help="One JSON object in place of lines."
    )
    parser.add_argument("--seed_everything", type=int, default=42, help="As for fit.")
    parser.add_class_arguments(TextDataModule, "data", skip={"seed"})
    return parser


def _of_data_alone(args: list[str]) -> list[str]:
    """The same arguments with what matters here of each settings file in its place."""
    found = list(args)
    for index, (before, arg) in enumerate(pairwise(["", *args])):
        name, joined, value = arg.partition("=")
        if before in ("--config", "-c"):
            found[index] = _settings(arg)
        elif joined and name in ("--config", "-c"):
            found[index] = f"{name}={_settings(value)}"
    return found


def _settings(value: str) -> str:
    path = Path(expand(value))
    if not path.is_file():
        return value  # left to the parser
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    return json.dumps({name: settings[name] for name in OWN if name in settings})
