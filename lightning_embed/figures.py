"""Figures of a run: their tags, the pages they are arranged on, and one call that logs them.

A tag's part before the slash is its group. TensorBoard sorts groups and tags by name, so that
`loss/` comes first there; `PAGES` is its page of custom scalars, in an order of our own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing Lightning takes seconds
    import lightning as L

TRAIN_LOSS = "loss/train"  # of one global batch, nats a token
VALIDATION_LOSS = "loss/validation"

BITS_PER_BYTE = "quality/bits_per_byte"
HELD_OUT_LOSS = "quality/held_out_loss"  # of the best weights, on all of the held-out text
HELD_OUT_BITS_PER_BYTE = "quality/held_out_bits_per_byte"

TOKENS_PER_SECOND = "speed/tokens_per_second"  # real ones, over all processes
FLOPS_PER_SECOND = "speed/flops_per_second"
MFU = "speed/mfu"
DATA_WAIT = "speed/data_wait"
MEMORY = "speed/memory_gib"
RECOMPILATIONS = "speed/recompilations"

TOKENS = "progress/tokens"  # real ones seen so far, by all processes
EPOCH_LOSS = "progress/epoch_loss"  # training loss, mean over an epoch
MINUTES = "progress/minutes"  # of training so far, the parts of a resumed run together

PADDING = "padding/fraction"  # of positions
PADDING_NORM = "padding/norm"  # of the padding vector
PADDING_GRADIENT = "padding/gradient"

LEARNING_RATE = "optim/lr"  # followed by _ and a rule
GRADIENT_NORM = "optim/gradient_norm"  # before clipping; of a group: followed by _ and its name
UPDATE_NORM = "optim/update_norm"  # of a step, weight decay included; followed by _ and a group
SPIKES = "optim/spikes"

_GROUPS = ("matrices", "embeddings", "vectors")  # of parameters, as `training/optim.py` names them

# Title, then charts, each of a name and its tags.
PAGES: dict[str, dict[str, tuple[str, ...]]] = {
    "Overview": {
        "loss": (TRAIN_LOSS, VALIDATION_LOSS),
        "bits per byte": (BITS_PER_BYTE,),
        "real tokens per second": (TOKENS_PER_SECOND,),
        "padding": (PADDING,),
        "learning rate": (f"{LEARNING_RATE}_muon", f"{LEARNING_RATE}_adamw"),
    },
    "Quality": {
        "perplexity": ("quality/perplexity",),
        "accuracy": ("quality/accuracy",),
        "real tokens seen": (TOKENS,),
    },
    "Optimizer": {
        "gradient norms": (
            GRADIENT_NORM,
            *(f"{GRADIENT_NORM}_{group}" for group in _GROUPS),
        ),
        "update norms": tuple(f"{UPDATE_NORM}_{group}" for group in _GROUPS),
        "loss spikes so far": (SPIKES,),
    },
    "Speed": {
        "MFU": (MFU,),
        "waiting for data": (DATA_WAIT,),
        "memory, GiB": (MEMORY,),
        "graphs compiled anew": (RECOMPILATIONS,),
    },
    "Padding vector": {"norm": (PADDING_NORM,), "gradient": (PADDING_GRADIENT,)},
}


def pages(names: Sequence[str] = ()) -> dict[str, dict[str, tuple[str, ...]]]:
    """`PAGES`, and one with a line for each source of a mixture."""
    if not names:
        return PAGES
    charts = {"loss": "loss", "bits per byte": "bits_per_byte"}
    tags = {title: tuple(_of_source(x, name) for name in names) for title, x in charts.items()}
    return {**PAGES, "Sources": tags}


def _of_source(figure: str, name: str) -> str:
    return f"sources/{figure}_{name}"


def of_sources(
    values: Mapping[str, Mapping[str, float]], held_out: bool = False
) -> dict[str, float]:
    """An evaluation's figures of each source of a mixture by their tags; see `of_validation`."""
    before = "held_out_" if held_out else ""
    return {
        _of_source(before + figure, name): value
        for name, its in values.items()
        for figure, value in its.items()
    }


def of_validation(values: Mapping[str, float], held_out: bool = False) -> dict[str, float]:
    """An evaluation's loss, perplexity and so on by their tags.

    Args:
        values: by their plain names, `"loss"` among them.
        held_out: of the evaluation at the end, not of those while a run trains.
    """
    if held_out:
        return {f"quality/held_out_{name}": value for name, value in values.items()}
    tags = {"loss": VALIDATION_LOSS}
    return {tags.get(name, f"quality/{name}"): value for name, value in values.items()}


def log(trainer: L.Trainer, values: Mapping[str, float], step: int | None = None) -> None:
    """Write figures, by tag, to all of the trainer's loggers.

    Args:
        trainer: whose loggers; without one nothing happens.
        values: plain numbers; a tensor on a GPU would make it wait.
        step: optimizer steps done; unset, the trainer's.
    """
    for logger in trainer.loggers:
        logger.log_metrics(dict(values), trainer.global_step if step is None else step)
