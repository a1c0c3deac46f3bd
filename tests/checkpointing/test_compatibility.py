"""Every reason for which a checkpoint is refused, in the order in which they are looked at."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_embed.checkpointing.compatibility import (
    CHECKS,
    DATA,
    FORMAT,
    FORMAT_KEY,
    Candidate,
    Purpose,
    Stage,
    check,
    trainer_settings,
)
from lightning_embed.checkpointing.lightning_io import AtomicCheckpointIO
from lightning_embed.errors import UserError

WEIGHT = torch.nn.Parameter(torch.zeros(3, 2))
PLAN = {"max_length": 8, "seed": 42}
STATE = {
    "state_dict": {"w": WEIGHT.detach()},
    "hyper_parameters": {"d_model": 2, "lr": 0.1, "betas": (0.9, 0.95), "schedule_steps": 5},
    "pytorch-lightning_version": "2.6.6",
    "global_step": 4,
    "epoch": 0,
    "loops": {"fit_loop": {}},
    "optimizer_states": [
        {
            "state": {0: {"exp_avg": torch.zeros(3, 2), "step": torch.tensor(4.0)}},
            "param_groups": [{"name": "words", "params": [0]}],
        }
    ],
    "lr_schedulers": [],
    "callbacks": {"Resuming": {"settings": {"max_steps": 10}}},
    FORMAT_KEY: FORMAT,
    "tokenizer": "{}",
    DATA: {
        "step": 4,
        "epoch": 0,
        "consumed": 4,
        "data": "d1",
        "tokenizer": "t1",
        "asked": {},
        "plan": PLAN,
    },
}


def candidate(path: Path, purpose: Purpose = "train") -> Candidate:
    """One that every check lets pass."""
    state = copy.deepcopy(STATE)
    AtomicCheckpointIO().save_checkpoint(state, path)
    return Candidate(
        path,
        purpose,
        state,
        model={"d_model": 2, "lr": 0.1, "betas": [0.9, 0.95], "schedule_steps": None},
        default={"d_model": 256}.get,
        trainer={"max_steps": 10},
        data={"key": "d1", "tokenizer": "t1", "plan": dict(PLAN)},
        state_dict={"w": WEIGHT},
        groups={"words": [WEIGHT]},
    )


def cut(c: Candidate) -> None:
    c.path.write_bytes(c.path.read_bytes()[:-30])


def of_llama_cpp(c: Candidate) -> None:
    c.path.write_bytes(b"GGUF" + bytes(60))


def put(*keys: str, to: Any) -> Callable[[Candidate], None]:
    """Set what `checkpoint[keys[0]][keys[1]]...` holds."""

    def change(c: Candidate) -> None:
        place: Any = c.checkpoint
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = to

    return change


def drop(key: str) -> Callable[[Candidate], None]:
    return lambda c: c.checkpoint.pop(key)


# check, stage, purpose, what is wrong, words of the refusal
REFUSALS: list[tuple[str, Stage, Purpose, Callable[[Candidate], Any], str]] = [
    ("require_there", "file", "train", lambda c: c.path.unlink(), "no checkpoint at"),
    ("require_undamaged", "file", "generate", cut, "is damaged"),
    ("require_undamaged", "file", "generate", of_llama_cpp, "is a file for llama.cpp"),
    ("take_header", "file", "generate", lambda c: torch.save(Path, c.path), "could run a program"),
    ("require_ours", "content", "generate", drop("state_dict"), "not a checkpoint that fit wrote"),
    ("require_ours", "content", "train", put("epoch", to="x"), "not a checkpoint that fit wrote"),
    ("require_this_format", "content", "evaluate", drop(FORMAT_KEY), "lightning_embed 0.1"),
    ("require_this_format", "content", "train", put(FORMAT_KEY, to=9), "a later version"),
    ("require_tokenizer", "content", "generate", put("tokenizer", to=None), "no tokenizer"),
    ("require_complete", "run", "train", drop("loops"), "has no loops: it can be evaluated"),
    ("require_complete", "run", "train", put(DATA, "plan", to=None), "has no plan"),
    ("require_complete", "run", "train", put("loops", to={}), "has no fit_loop"),
    (
        "take_or_require_shape",
        "shape",
        "train",
        lambda c: c.model.update(d_model=4),
        "--model.d_model is 4, but .* was trained with 2",
    ),
    (
        "take_or_require_shape",
        "shape",
        "evaluate",
        lambda c: c.model.update(d_model=4),
        "--model.d_model is 4",
    ),
    ("require_same_text", "data", "train", lambda c: c.data.update(key="d2"), "data d1, not on d2"),
    (
        "require_same_tokenizer",
        "data",
        "evaluate",
        lambda c: c.data.update(tokenizer="t2"),
        "another tokenizer",
    ),
    (
        "require_same_batches",
        "data",
        "train",
        lambda c: c.data["plan"].update(max_length=9),
        "--data.max_length is 9, but this checkpoint was trained with 8",
    ),
    (
        "require_same_batches",
        "data",
        "train",
        lambda c: c.data["plan"].update(seed=1),
        "--seed_everything is 1",
    ),
    (
        "require_same_tensors",
        "tensors",
        "generate",
        lambda c: c.state_dict.update(w=torch.zeros(3, 3)),
        "w have other shapes",
    ),
    (
        "require_same_tensors",
        "tensors",
        "generate",
        lambda c: c.state_dict.update(v=torch.zeros(1)),
        "v have other shapes or are on one side only",
    ),
    (
        "require_same_tensors",
        "tensors",
        "train",
        lambda c: c.checkpoint["optimizer_states"][0]["state"].clear(),
        "a moment in group words",
    ),
    (
        "require_same_tensors",
        "tensors",
        "train",
        lambda c: c.groups.update(vectors=[WEIGHT]),
        "optimizer group vectors",
    ),
]


@pytest.mark.parametrize(
    ("name", "stage", "purpose", "spoil", "words"), REFUSALS, ids=lambda x: str(x)[:24]
)
def test_a_check_refuses_in_one_sentence(
    tmp_path: Path,
    name: str,
    stage: Stage,
    purpose: Purpose,
    spoil: Callable[[Candidate], None],
    words: str,
) -> None:
    it = candidate(tmp_path / "x.ckpt", purpose)
    spoil(it)
    looks = {look.__name__: look for look in CHECKS[stage]}
    with pytest.raises(UserError, match=words) as told:
        check(it, stage)
    assert "\n" not in str(told.value)
    for before in list(looks)[: list(looks).index(name)]:
        looks[before](it)  # it is this check that refuses, none before it


def test_every_check_has_a_sentence_and_a_case() -> None:
    checks = [look for looks in CHECKS.values() for look in looks]
    assert all(look.__doc__ for look in checks)
    telling = {"tell_changes"}  # refuses nothing
    assert {look.__name__ for look in checks} - telling == {name for name, *_ in REFUSALS}


@pytest.mark.parametrize("purpose", ["train", "evaluate", "generate"])
def test_what_fits_passes_every_check(tmp_path: Path, purpose: Purpose, capsys: Any) -> None:
    it = candidate(tmp_path / "x.ckpt", purpose)
    check(it, *CHECKS)
    assert capsys.readouterr().out == ""


def test_a_setting_of_the_plan_may_stand_there_only_where_it_is_given(tmp_path: Path) -> None:
    c = candidate(tmp_path / "a.ckpt")
    c.data["plan"]["decontaminate"] = True
    with pytest.raises(UserError, match=r"--data\.decontaminate is true, but .* with not given"):
        check(c, "data")
    c.checkpoint[DATA]["plan"] = dict(c.data["plan"])
    check(c, "data")
    del c.data["plan"]["decontaminate"]
    with pytest.raises(UserError, match=r"--data\.decontaminate is not given, but .* with true"):
        check(c, "data")


def test_what_may_change_is_told(tmp_path: Path, capsys: Any) -> None:
    it = candidate(tmp_path / "x.ckpt")
    it.model["lr"] = 0.2
    it.trainer["max_steps"] = 20
    check(it, "changes")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines] == [
        "model.lr 0.1 -> 0.2, applied from here on",
        "trainer.max_steps 10 -> 20, applied from here on",
    ]


@pytest.mark.parametrize("stage", ["run", "data"])
def test_evaluation_needs_no_run_and_may_score_other_text(tmp_path: Path, stage: Stage) -> None:
    it = candidate(tmp_path / "x.ckpt", "evaluate")
    it.checkpoint.pop("loops")
    it.data.update(key="d2", plan={"max_length": 9})
    check(it, stage)


def test_evaluation_takes_the_shape_of_the_checkpoint_unless_one_was_asked_for(
    tmp_path: Path,
) -> None:
    it = candidate(tmp_path / "x.ckpt", "evaluate")
    it.model["d_model"] = 256  # the default
    check(it, "shape")
    assert it.model["d_model"] == 2


def test_settings_are_kept_as_plain_values() -> None:
    class Strategy:
        class_path = "somewhere.FSDP2Strategy"

    kept = trainer_settings({"strategy": Strategy(), "max_steps": 3, "devices": [0, 1]})
    assert (kept["strategy"], kept["max_steps"], kept["devices"]) == ("FSDP2Strategy", 3, "[0, 1]")
    assert kept["precision"] is None
