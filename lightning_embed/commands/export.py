"""The `export` command: a trained network as a folder or file that other programs load."""

import shlex
from pathlib import Path

from lightning_embed.console import say, short
from lightning_embed.pretrained.export import Format, require_possible
from lightning_embed.pretrained.export import export as write
from lightning_embed.pretrained.gguf import Dtype
from lightning_embed.pretrained.held_out import HeldOut, measure
from lightning_embed.pretrained.opening import open_pretrained
from lightning_embed.tokens.lossy import LOSSY


def export(
    checkpoint: str,
    output: str,
    format: Format = "huggingface",
    dtype: Dtype = "F32",
    overwrite: bool = False,
) -> None:
    """Write a trained network as a folder that transformers loads, or as a file for llama.cpp.

    Args:
        checkpoint: a run's folder, whose best is taken; a .ckpt or a folder of shards; best or last
            of the latest run; or a Hugging Face folder.
        output: the folder to write, or the GGUF file.
        format: huggingface is a folder, gguf a file.
        dtype: of a GGUF file's matrices.
        overwrite: replace an older export there.
    """
    # before anything is read or measured
    require_possible(Path(output), format, dtype, overwrite)
    pretrained = open_pretrained(checkpoint)
    held_out: HeldOut | None = None
    if format == "huggingface":  # whose model card says it
        held_out = measure(pretrained)
        _say_quality(held_out)
    written = write(
        pretrained,
        output,
        format=format,
        dtype=dtype,
        overwrite=overwrite,
        evaluation=held_out,
    )
    files = written.iterdir() if written.is_dir() else [written]
    usage = {
        "huggingface": "its README.md says how to use it",
        "gguf": f"to use it: llama-cli -m {shlex.quote(output)}",
    }
    size = short(sum(file.stat().st_size for file in files))
    say("written", f"{output}   {size}B; {usage[format]}")


def _say_quality(held_out: HeldOut | None) -> None:
    """What was measured."""
    if held_out is None:
        say("held out", "not measured: the tokens of its run are not on this machine")
    else:
        say(
            "held out",
            f"loss {held_out.loss:.4f}   bits per byte {held_out.bits_per_byte:.4f}"
            f"{'' if held_out.keeps_text else LOSSY}   of"
            f" {short(held_out.tokens)} tokens of {held_out.text}",
        )
        say(
            "",
            f"as exported {held_out.shift:.1e} nats a token more: padding's logit is 0 there, not"
            " minus infinity",
        )
