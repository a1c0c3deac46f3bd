"""`fit --init_from PATH`: a run that begins with trained weights in place of random ones.

Weights alone are taken, and what belongs to them: the tokenizer, and the settings that decide the
network's shape, which are written into the run's own as if the user had given them. Optimizer,
schedule and data are new. The run's checkpoints hold all of it, so a resume does not read PATH.
"""

from pathlib import Path
from typing import Any

from lightning_embed.checkpointing.compatibility import SHAPE
from lightning_embed.commands.options import named_in
from lightning_embed.commands.parser import settings_on_command_line
from lightning_embed.console import say
from lightning_embed.errors import UserError
from lightning_embed.pretrained.opening import open_pretrained
from lightning_embed.pretrained.weights import Pretrained
from lightning_embed.tokens.tokenizer import TextTokenizer
from lightning_embed.tokens.trained import TRAINED

TOKENIZER, VOCABULARY = "data.tokenizer", "data.vocab_size"


def begin_from(config: Any, args: list[str], folder: Path) -> tuple[Pretrained, set[str]]:
    """Read the weights that a run begins with, and take over what belongs to them.

    Args:
        config: all settings of `fit`, changed in place.
        args: the command line.
        folder: of the run, which keeps the tokenizer.

    Returns:
        The network, and names of the settings that are decided by it.

    Raises:
        UserError: PATH cannot be used, or the command line asks for something else than it is.
    """
    path = Path(config.init_from)
    if config.init_from in ("", "best", "last"):  # of the latest run, which is this one
        raise UserError(
            f"--init_from {config.init_from!r} is no path: give a checkpoint, a run's folder or a"
            " Hugging Face folder"
        )
    found = open_pretrained(path)
    typed, named = named_in(settings_on_command_line(args)), named_in(args)
    replaced = []
    settled = {f"model.{name}": found.settings[name] for name in sorted(SHAPE)}
    for name, theirs in settled.items():
        own = config[name]
        if own == theirs:
            continue
        if name in typed:
            raise _differs(name, own, path, theirs)
        if name in named:
            replaced.append(f"{name} {own} -> {theirs}")
        config[name] = theirs
    own = config[TOKENIZER]
    if TOKENIZER in named and not _is_same(own, found.tokenizer, path, must=TOKENIZER in typed):
        replaced.append(f"{TOKENIZER} {own} -> that of its ids")
    own, theirs = config[VOCABULARY], found.tokenizer.vocab_size
    if own not in (None, theirs):
        if VOCABULARY in typed:
            raise _differs(VOCABULARY, own, path, theirs)
        replaced.append(f"{VOCABULARY} {own} -> {theirs}")
    config[TOKENIZER], config[VOCABULARY] = str(folder / "tokenizer.json"), None
    _tell(path, found, replaced)
    return found, {*settled, TOKENIZER, VOCABULARY}


def _differs(name: str, own: Any, path: Path, theirs: Any) -> UserError:
    return UserError(
        f"--{name} is {own}, but {path} has {theirs}: leave it out, or train from scratch without"
        " --init_from"
    )


def _is_same(own: str, theirs: TextTokenizer, path: Path, must: bool) -> bool:
    """Whether `own`, as `--data.tokenizer` has it, is the tokenizer of the weights."""
    if own not in TRAINED:
        try:
            if TextTokenizer.load(own).fingerprint == theirs.fingerprint:
                return True
        except (UserError, FileNotFoundError):
            if must:
                raise
    if must:
        raise UserError(
            f"--{TOKENIZER} {own} gives other ids than {path} was trained with: leave it out, its"
            " own is kept"
        )
    return False


def _tell(path: Path, found: Pretrained, replaced: list[str]) -> None:
    count = sum(p.numel() for p in found.network.parameters())
    s = found.settings
    say(
        "init",
        f"{path}: {count:,} weights, {s['n_layers']} layers of width {s['d_model']}, vocabulary"
        f" {found.tokenizer.vocab_size:,}; its tokenizer is kept, optimizer and schedule are new",
    )
    norm = found.about.get("padding_norm", 0.0)
    say("", f"padding row zeroed: its norm was {norm:.3g}" if norm else "padding row is zero")
    if left_out := found.about.get("ids_left_out", 0):
        say("", f"{left_out:,} rows beyond its tokenizer's ids are left out")
    if replaced:
        say("note", f"settings files give way to the weights: {', '.join(replaced)}")
