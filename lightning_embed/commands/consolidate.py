"""The `consolidate` command: one file out of a checkpoint in shards."""

from pathlib import Path

from lightning_embed.checkpointing.compatibility import Candidate, check
from lightning_embed.checkpointing.lightning_io import AtomicCheckpointIO
from lightning_embed.checkpointing.run_folders import find_checkpoint
from lightning_embed.checkpointing.shards import read_whole
from lightning_embed.console import say
from lightning_embed.errors import UserError


def consolidate(checkpoint: str, output: str) -> None:
    """Put a checkpoint in shards together into one ordinary file.

    Args:
        checkpoint: a .ckpt folder that fit wrote with --config fsdp, or the run's folder, whose
            best is taken; or best or last of the latest run.
        output: the .ckpt file to write.
    """
    source, target = find_checkpoint(checkpoint, "evaluate"), Path(output)
    if not source.is_dir():
        raise UserError(f"no folder of shards at {source}; give --checkpoint a .ckpt folder")
    if target.exists():
        raise UserError(f"{target} is there already; give --output another name")
    candidate = Candidate(source, "evaluate")
    check(candidate, "file", "content")
    AtomicCheckpointIO().save_checkpoint(read_whole(source), target)
    say("saved", f"{target}   {target.stat().st_size / 1e6:.0f} MB")
