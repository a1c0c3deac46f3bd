"""Options that were given and change nothing in this run: one note for each.

An option is a row of a table. It counts as given when it is not its default.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from lightning_embed.console import say
from lightning_embed.data.plan import eighths
from lightning_embed.tokens.trained import TRAINED


class WithoutEffect(NamedTuple):
    """An option, when it has no effect, and why."""

    option: str
    when: Callable[[Any], bool]  # of all options, by their dotted names
    why: str


def note_without_effect(
    rows: Iterable[WithoutEffect], options: Any, default: Callable[[str], Any]
) -> None:
    """Say which of the rows' options were given in vain.

    Args:
        rows: a table.
        options: what was asked for; `options[name]` takes dotted names.
        default: of an option.
    """
    for option, when, why in rows:
        value = options[option]
        if value != default(option) and when(options):
            shown = " ".join(map(str, value)) if isinstance(value, list) else value
            say("note", f"--{option} {shown} has no effect: {why}")


def _rows_never_reached(options: Any) -> bool:
    """Whether a batch holds fewer rows than allowed even where they are narrowest."""
    longest = options["data.max_length"]
    narrowest = min(options["data.widths"] or eighths(longest))
    if options["data.layout"] == "packed":
        narrowest = longest
    rows: int = options["data.rows_per_batch"]
    return rows >= options["data.tokens_per_batch"] // max(1, narrowest)


DATA = (
    *(
        WithoutEffect(name, lambda options: not options["data.hub"], "there is no --data.hub")
        for name in ("data.hub_config", "data.hub_split", "data.hub_revision", "data.hub_streaming")
    ),
    WithoutEffect(
        "data.vocab_size",
        lambda options: options["data.tokenizer"] == "characters",
        "--data.tokenizer characters has an id for each",
    ),
    WithoutEffect(
        "data.vocab_size",
        lambda options: options["data.tokenizer"] not in TRAINED,
        "the tokenizer of --data.tokenizer has its own",
    ),
    WithoutEffect(
        "data.rows_per_batch",
        _rows_never_reached,
        "--data.tokens_per_batch allows no more rows anyway",
    ),
    WithoutEffect(
        "data.quick_eval_tokens",
        lambda options: options["trainer.limit_val_batches"] == 0,
        "--trainer.limit_val_batches 0 validates nothing while training",
    ),
)


def _unless(option: str, value: Any) -> Callable[[Any], bool]:
    return lambda options: bool(options[option] != value)


def _where(option: str, *values: Any) -> Callable[[Any], bool]:
    return lambda options: options[option] in values


CONSTANT = _where("model.schedule", "constant")
UNSEEN = _where("trainer.limit_val_batches", 0)
RUN = (
    *(
        WithoutEffect(name, _unless("model.optimizer", "muon"), "--model.optimizer is not muon")
        for name in ("model.muon_lr", "model.muon_dtype", "model.muon_turns")
    ),
    WithoutEffect(
        "model.decay_fraction", _unless("model.schedule", "wsd"), "--model.schedule is not wsd"
    ),
    WithoutEffect("model.final_fraction", CONSTANT, "--model.schedule is constant"),
    WithoutEffect(
        "model.schedule_steps",
        lambda options: CONSTANT(options) and options["model.warmup_steps"] is not None,
        "--model.schedule is constant and --model.warmup_steps given",
    ),
    *(
        WithoutEffect(
            f"samples.{name}",
            _where("samples.max_new_tokens", 0),
            "--samples.max_new_tokens 0 switches samples off",
        )
        for name in ("temperature", "prompts")
    ),
    *(
        WithoutEffect(name, UNSEEN, "--trainer.limit_val_batches 0 validates nothing")
        for name in (
            *("early_stopping.monitor", "early_stopping.patience", "early_stopping.min_delta"),
            *("checkpoints.monitor", "checkpoints.mode"),
            *("trainer.val_check_interval", "trainer.check_val_every_n_epoch"),
        )
    ),
    WithoutEffect(
        "trainer.gradient_clip_algorithm",
        lambda options: not options["trainer.gradient_clip_val"],
        "--trainer.gradient_clip_val 0 clips nothing",
    ),
    WithoutEffect(
        "loss_watch.on_non_finite",
        lambda options: str(options["trainer.precision"]).startswith("16"),
        "the scaler of --trainer.precision skips such steps itself",
    ),
)
