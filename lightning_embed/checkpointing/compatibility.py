"""The one gate a checkpoint passes before it is used: all that can refuse it, or change with it.

`CHECKS` lists the checks by stage, in the order in which they are made. Each looks at a
`Candidate`, which knows more from stage to stage, and raises `UserError`, one sentence.

    file      there, whole, free of code          as soon as its path is known
    content   ours, of this format                what stands in it beside tensors
    run       more than weights, to go on
    shape     the network asked for               before anything is built
    changes   what else differs, which is said
    data      same text, tokenizer, batches       once the text is prepared
    tensors   same names and shapes               before any of them is copied

What a resume changes without asking: a schedule's length and number formats left unset are those
the run began with (`LanguageModel.on_load_checkpoint`, `commands/settling.py`), the best value is
forgotten in a folder without best.ckpt (`Checkpoints.load_state_dict`), and prepared tokens serve
although their text has changed, which is said (`TextDataModule`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from lightning_embed.checkpointing.files import is_whole, read_header
from lightning_embed.console import say
from lightning_embed.errors import UserError
from lightning_embed.model.decoder import DecoderLM

Stage = Literal["file", "content", "run", "shape", "changes", "data", "tensors"]
Purpose = Literal["train", "evaluate", "generate"]

# Raise it when older code could not read a new checkpoint, or the other way; 0.1 wrote no number.
FORMAT = 2
FORMAT_KEY = "lightning_embed_format"

# Hyperparameters that decide a network's shape: a checkpoint fits no other.
SHAPE = DecoderLM.settings().keys() - set(DecoderLM.FREE)
FIXED = SHAPE | {"freeze"}  # which parameters have moments in a checkpoint, too
FROM_DATA = ("vocab_size", "max_length")
AS_BEGUN = ("schedule_steps", "muon_dtype", "muon_turns")  # left unset: as when the run began

# What of the trainer's settings changes a run's figures or its division.
TRAINER = (
    "strategy",
    "devices",
    "num_nodes",
    "accumulate_grad_batches",
    "precision",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "max_steps",
    "max_epochs",
    "val_check_interval",
    "check_val_every_n_epoch",
    "limit_train_batches",
    "limit_val_batches",
)

DATA = "TextDataModule"  # its state's key in a checkpoint
ANY_MODEL = {"state_dict": dict, "hyper_parameters": dict, "pytorch-lightning_version": str}
NUMBERS = {"global_step": int, "epoch": int}
RUN = {
    **NUMBERS,
    "loops": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "callbacks": dict,
    DATA: dict,
}
RUN_DATA = {
    "step": int,
    "epoch": int,
    "consumed": int,
    "data": str,
    "tokenizer": str,
    "asked": dict,
    "plan": dict,
}


@dataclass
class Candidate:
    """A checkpoint, what is wanted with it, and what it is to go together with.

    Attributes:
        path: of the checkpoint, as messages name it.
        purpose: "train" goes on with the run, "evaluate" scores text or only loads weights,
            "generate" continues prompts.
        checkpoint: what it holds; without tensors before the last stage.
        model: `--model.*` as asked for; evaluation writes the checkpoint's shape into it.
        default: a model setting's default, which nobody asked for.
        trainer: `trainer_settings` of today.
        data: the prepared data: `key`, `tokenizer` (fingerprint), `plan` (what decides a batch).
        state_dict: the model's, of today.
        groups: parameters of each of the optimizer's groups, in order.
    """

    path: Path
    purpose: Purpose
    checkpoint: dict[str, Any] = field(default_factory=dict)
    model: Any = None
    default: Callable[[str], Any] = lambda key: None
    trainer: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    state_dict: Mapping[str, Tensor] = field(default_factory=dict)
    groups: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)

    @property
    def trains(self) -> bool:
        return self.purpose == "train"


def check(candidate: Candidate, *stages: Stage) -> None:
    """Make the checks of these stages; the first that fails raises `UserError`."""
    for stage in stages:
        for look in CHECKS[stage]:
            look(candidate)


# file --------------------------------------------------------------------------------------------


def require_there(candidate: Candidate) -> None:
    """There is a file or a folder of shards at its path."""
    path = candidate.path
    if not path.exists():
        raise UserError(f"no checkpoint at {path}; give a checkpoint or a run's folder")
    if path.is_dir() and path.suffix != ".ckpt" and not any(path.glob("*.distcp")):
        if (path / "config.json").is_file():
            raise UserError(
                f"{path} is a Hugging Face folder, which is no checkpoint: fit takes it with"
                " --init_from, test with --against, export and generate with --checkpoint"
            )
        runs = sorted(folder.parent for folder in path.glob("*/checkpoints"))
        raise UserError(
            f"{path} is a folder without a checkpoint"
            f"{f' (its runs have one: {runs[0]})' if runs else ''}; give a checkpoint or a"
            " run's folder"
        )


def require_undamaged(candidate: Candidate) -> None:
    """It is complete and its checksums hold; torch.load would not notice flipped bits."""
    if is_whole(candidate.path):
        return
    if candidate.path.is_file():
        with open(candidate.path, "rb") as file:
            if file.read(4) == b"GGUF":
                raise UserError(
                    f"{candidate.path} is a file for llama.cpp, which is no checkpoint: give the"
                    " checkpoint that it was made of"
                )
    raise damage(candidate.path)


def damage(path: Path) -> UserError:
    """What is said of a file or folder that is not whole."""
    return UserError(
        f"{path} is damaged (not a whole archive, or its checksums do not hold); give another, or"
        " `last` for the newest whole one"
    )


def take_header(candidate: Candidate) -> None:
    """It holds tensors and plain values, nothing that would run a program; what it holds is known
    from here on."""
    candidate.checkpoint = read_header(candidate.path)  # refuses code


# content -----------------------------------------------------------------------------------------


def require_ours(candidate: Candidate) -> None:
    """It is a checkpoint of a `LanguageModel`, not just any archive or LightningModule."""
    found = candidate.checkpoint
    numbers = {name: found.get(name, 0) for name in NUMBERS}  # not every saved model was trained
    foreign = _lacking(found, ANY_MODEL) or _lacking(numbers, NUMBERS)
    if foreign or "d_model" not in found["hyper_parameters"]:
        raise UserError(f"{candidate.path} is not a checkpoint that fit wrote")


def require_this_format(candidate: Candidate) -> None:
    """Its settings are named as today."""
    found = candidate.checkpoint.get(FORMAT_KEY, 1)
    if found != FORMAT:
        writer = "0.1" if found == 1 else "a later version"
        raise UserError(
            f"{candidate.path} was written by lightning_embed {writer} (format {found}, this one"
            f" reads {FORMAT}): use that version, or train anew"
        )


def require_tokenizer(candidate: Candidate) -> None:
    """To continue prompts, it carries the tokenizer it was trained with."""
    if candidate.purpose == "generate" and not candidate.checkpoint.get("tokenizer"):
        raise UserError(
            f"{candidate.path} carries no tokenizer: it was not trained on text by this package"
        )


# run ---------------------------------------------------------------------------------------------


def require_complete(candidate: Candidate) -> None:
    """To go on with a run, it holds more than weights."""
    if not candidate.trains:
        return
    found = candidate.checkpoint
    missing = _lacking(found, RUN)
    if DATA not in missing:
        missing += _lacking(found[DATA], RUN_DATA)
    if "loops" not in missing and "fit_loop" not in found["loops"]:
        missing.append("fit_loop")
    if missing:
        raise UserError(
            f"{candidate.path} has no {', '.join(missing)}: it can be evaluated, but no run can"
            " go on from it"
        )


def _lacking(found: Mapping[str, Any], wanted: Mapping[str, type]) -> list[str]:
    return [name for name, kind in wanted.items() if not isinstance(found.get(name), kind)]


# settings ----------------------------------------------------------------------------------------


def take_or_require_shape(candidate: Candidate) -> None:
    """Its network is the one asked for; evaluation takes the checkpoint's shape if none was."""
    for key, then, now in _different_settings(candidate):
        if key not in FIXED:
            continue
        if not candidate.trains and now == candidate.default(key):
            candidate.model[key] = then
            continue
        why = "a checkpoint fits no other shape" if key in SHAPE else "it has moments of the rest"
        raise UserError(
            f"--model.{key} is {now}, but {candidate.path} was trained with {then}: {why}; leave it"
            " as it was or start a new run"
        )


def tell_changes(candidate: Candidate) -> None:
    """Other settings may change when a run goes on: today's are taken, and said."""
    if not candidate.trains:
        return
    for key, then, now in _different_settings(candidate):
        if key not in FIXED:
            say("changed", f"model.{key} {then} -> {now}, applied from here on")
    before = trainer_settings_then(candidate.checkpoint)
    for key, now in candidate.trainer.items():
        # To Lightning 1 is one batch and 1.0 all of them.
        whole = now == 1 and type(before.get(key)) is not type(now)
        if key in before and (before[key] != now or whole):
            say("changed", f"trainer.{key} {before[key]} -> {now}, applied from here on")


def _different_settings(candidate: Candidate) -> Iterator[tuple[str, Any, Any]]:
    """Model settings as (name, the checkpoint's value, today's)."""
    for key, then in candidate.checkpoint["hyper_parameters"].items():
        now = candidate.model.get(key)
        same = _listed(now) == _listed(then)
        if not same and key not in FROM_DATA and not (key in AS_BEGUN and now is None):
            yield key, then, now


def _listed(value: Any) -> Any:
    """Tuples come back from YAML and checkpoints as lists."""
    return list(value) if isinstance(value, tuple) else value


def trainer_settings(trainer: Any) -> dict[str, Any]:
    """What a later resume compares with its own, as plain values; `trainer` as configured."""
    return {key: _plain(trainer.get(key)) for key in TRAINER}


def trainer_settings_then(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The same of the run that wrote a checkpoint."""
    then: dict[str, Any] = checkpoint["callbacks"].get("Resuming", {}).get("settings", {})
    return then


def _plain(value: Any) -> Any:
    """As a checkpoint can keep it and a line can show it: a class by its name."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    path = getattr(value, "class_path", None)
    return path.rsplit(".", 1)[-1] if isinstance(path, str) else str(value)


# data --------------------------------------------------------------------------------------------


def require_same_text(candidate: Candidate) -> None:
    """A run goes on with the text it began with: its place in another one means nothing."""
    then, now = candidate.checkpoint[DATA]["data"], candidate.data["key"]
    if candidate.trains and then != now:
        raise UserError(
            f"this checkpoint was trained on data {then}, not on {now}: give the same --data.*"
            " settings and text as then, or start a new run without --ckpt_path"
        )


def require_same_tokenizer(candidate: Candidate) -> None:
    """Its ids mean what the data's ids mean."""
    if candidate.checkpoint[DATA]["tokenizer"] != candidate.data["tokenizer"]:
        raise UserError(
            "this checkpoint was trained with another tokenizer than this data's: give the"
            " --data.* settings of then, or its tokenizer.json as --data.tokenizer"
        )


def require_same_batches(candidate: Candidate) -> None:
    """Batch number n holds the same windows as when the run began."""
    if not candidate.trains:
        return
    plan, before = candidate.data["plan"], candidate.checkpoint[DATA]["plan"]
    for name in [*plan, *(name for name in before if name not in plan)]:
        now, then = plan.get(name), before.get(name)  # some stand there only where they are given
        if now != then:
            flag = "--seed_everything" if name == "seed" else f"--data.{name}"
            raise UserError(
                f"{flag} is {_said(now)}, but this checkpoint was trained with {_said(then)}: its"
                " place in the text would be another; leave it as it was or start a new run"
            )


def _said(value: Any) -> str:
    """As it is given on the command line."""
    if value is None:
        return "not given"
    return str(value).lower() if isinstance(value, bool) else str(value)


# tensors -----------------------------------------------------------------------------------------


def require_same_tensors(candidate: Candidate) -> None:
    """Weights have today's names and shapes, and moments too where training goes on."""
    own = candidate.state_dict
    theirs = candidate.checkpoint.get("state_dict") or own  # shards are compared by who reads them
    differ = [
        name
        for name in sorted(own.keys() | theirs.keys())
        if getattr(own.get(name), "shape", None) != getattr(theirs.get(name), "shape", ())
    ]
    if candidate.trains and "optimizer_states" in candidate.checkpoint:
        try:
            differ += _unfit_moments(candidate.checkpoint["optimizer_states"], candidate.groups)
        except (KeyError, TypeError, AttributeError, ValueError):
            differ.append("the optimizer's state")
    if differ:
        raise UserError(
            f"the checkpoint does not fit this model: {', '.join(differ[:3])}"
            f"{' and more' if len(differ) > 3 else ''} have other shapes or are on one side only;"
            " give the --model.* settings it was trained with"
        )


def _unfit_moments(
    states: list[dict[str, Any]], groups: Mapping[str, Sequence[Tensor]]
) -> Iterator[str]:
    (state,) = states
    theirs = {group["name"]: group["params"] for group in state["param_groups"]}
    for name in theirs.keys() | groups.keys():
        keys, parameters = theirs.get(name, ()), groups.get(name, ())
        if len(keys) != len(parameters):
            yield f"optimizer group {name}"
        for key, parameter in zip(keys, parameters, strict=False):
            moments = state["state"].get(key, {})
            if not moments or any(m.ndim and m.shape != parameter.shape for m in moments.values()):
                yield f"a moment in group {name}"


CHECKS: dict[Stage, tuple[Callable[[Candidate], None], ...]] = {
    "file": (require_there, require_undamaged, take_header),
    "content": (require_ours, require_this_format, require_tokenizer),
    "run": (require_complete,),
    "shape": (take_or_require_shape,),
    "changes": (tell_changes,),
    "data": (require_same_text, require_same_tokenizer, require_same_batches),
    "tensors": (require_same_tensors,),
}
