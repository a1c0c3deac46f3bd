"""Folders of runs: which one a run writes to, and which checkpoint `last` and `best` mean.

runs/NAME/  runs/NAME-2/ ...    one folder a run of that name
    checkpoints/                last.ckpt, previous.ckpt, best.ckpt
    config.yaml  tokenizer.json  TensorBoard's event files
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_embed.checkpointing.compatibility import Candidate, check
from lightning_embed.console import say
from lightning_embed.errors import UserError


@dataclass(frozen=True)
class Run:
    """Where a run writes, and what it begins from."""

    folder: Path
    checkpoint: Path | None

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"


def runs_named(root: Path, name: str) -> Iterator[Path]:
    """Folders of the runs called `name`: root/name, root/name-2, ..., oldest first."""
    number = 1
    while (folder := root / (name if number == 1 else f"{name}-{number}")).exists():
        yield folder
        number += 1


def next_folder(root: Path, name: str) -> Path:
    """The folder a fresh run of this name takes; never one that is in use."""
    used = sum(any(folder.iterdir()) for folder in runs_named(root, name))
    return root / (f"{name}-{used + 1}" if used else name)


def _progress(candidate: Candidate) -> tuple[int, int]:
    """Steps done; at equal steps the later file, which may know of a validation."""
    step: int = candidate.checkpoint.get("global_step", -1)
    return step, candidate.path.stat().st_mtime_ns


def newest_checkpoint(root: Path, name: str) -> Path:
    """The newest whole checkpoint of the newest run of this name; damaged ones are named.

    Raises:
        UserError: there is none; never a silent start from scratch.
    """
    passed_over = []
    for folder in reversed(list(runs_named(root, name))):
        whole = []
        files = list((folder / "checkpoints").glob("*.ckpt"))
        for file in files:
            candidate = Candidate(file, "evaluate")
            try:
                check(candidate, "file", "content")
                whole.append((_progress(candidate), file))
            except UserError as error:
                say("warning", f"passed over {file}: {error}")
                passed_over.append(str(file))
        if whole:
            return max(whole)[1]
        if files:
            break
    found = f" (passed over: {', '.join(passed_over)})" if passed_over else ""
    raise UserError(
        f"no checkpoint of a run named {name!r} under {root}{found}; leave out --ckpt_path to start"
        " afresh, or name the run with --name"
    )


SELF_EVIDENT = ("--config", "--name", "--ckpt_path", "--trainer.default_root_dir")


def resume_command(args: list[str], saved_config: Path, name: str, root: Path) -> str:
    """The command line that goes on with the newest run of this name.

    Args:
        args: the command line that started it. If it says more than `--config FILE`, the
            configuration saved with the run is named instead.
        saved_config: that file.
        name, root: of the run.
    """
    flags = [arg.split("=", 1)[0] for arg in args if arg.startswith("-")]
    configs = [args[i + 1] for i, arg in enumerate(args[:-1]) if arg == "--config"]
    plain = len(configs) == 1 and all(flag in SELF_EVIDENT for flag in flags)
    config = configs[0] if plain else str(saved_config)
    parts = ["python", "train.py", "fit", "--config", config]
    if Path(config).stem != name:
        parts += ["--name", name]
    if root != Path("runs"):
        parts += ["--trainer.default_root_dir", str(root)]
    return shlex.join([*parts, "--ckpt_path", "last"])


def choose_run(root: Path, name: str, *, ckpt_path: str | None, fresh: bool) -> Run:
    """The folder and checkpoint a command works with.

    Args:
        root: folder of all runs.
        name: the run's name.
        ckpt_path: "last", "best", a file, or None.
        fresh: without `ckpt_path`, a new folder is taken; otherwise the best checkpoint is meant.
    """
    if not name or Path(name).name != name or name.startswith("."):
        raise UserError(f"--name {name!r} must be a plain folder name")
    if ckpt_path is None and fresh:
        folder = next_folder(root, name)
        if folder.name != name:
            say("note", f"{root / name} is in use, this run goes to {folder}")
        return Run(folder, None)
    runs = list(runs_named(root, name))
    if ckpt_path == "last":
        checkpoint = newest_checkpoint(root, name)
    elif ckpt_path in (None, "best"):
        checkpoint = (runs[-1] if runs else root / name) / "checkpoints" / "best.ckpt"
    else:
        checkpoint = Path(str(ckpt_path))
    if checkpoint.parent.name == "checkpoints":
        return Run(checkpoint.parent.parent, checkpoint)
    return Run(next_folder(root, name), checkpoint)
