"""The same training however a batch is split: processes, accumulation, changes in mid-run, shards.

Float32, eager, one thread a process. Every run is compared with that of one process: at each step
the text of the global batch (a hash over its rows, from all processes and micro-batches, in no
order) and its loss; the first step's gradients; the validation loss in the end. A change in mid-run
is a SIGTERM and a resume with other options.

AdamW's learning rate is 0.001: at 0.003 this small network's training is chaotic, and from step 60
on a difference in the last digit grows tenfold every 20 steps, whoever causes it. Muon's
Newton-Schulz iteration grows such differences too, so that its losses are not compared step by
step.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import pytest
import torch
from soak.observers import digest, read_lines
from soak.small_runs import SmallRuns
from workshop import ROOT, load

pytestmark = pytest.mark.slow

STEPS = 100  # a quarter to half a minute each; at 200, losses differ by up to 1.2e-6
DOCUMENTS = 200
PATIENCE = 300  # seconds, after which processes that wait for each other are ended (status -9)
OPTIONS = ("--trainer.max_steps", str(STEPS), "--early_stopping.patience", "1000")
OPTIMIZERS = {
    "adamw": ("--model.optimizer", "adamw", "--model.lr", "0.001"),
    "muon": ("--model.optimizer", "muon"),
}
DDP = ("--trainer.strategy", "ddp", "--trainer.devices", "2")
FSDP = ("--config", str(ROOT / "configs" / "fsdp.yaml"))
OBSERVE = "--trainer.callbacks+=soak.observers.Batches"
STOP = "--trainer.callbacks+=workshop.SignalAt"
LOSS, FSDP_LOSS = 1e-6, 1e-5  # largest relative difference at any step, AdamW
GRADIENT = 1e-5  # of the largest
MUON_VALIDATION = 0.01


def accumulate(number: int) -> tuple[str, ...]:
    return ("--trainer.accumulate_grad_batches", str(number))


class Split(NamedTuple):
    """How a run is divided, in stages of equal length."""

    name: str
    stages: tuple[tuple[str, ...], ...]
    loss_limit: float = LOSS


SPLITS = (
    Split("2 processes", (DDP,)),
    Split("accumulation 2", (accumulate(2),)),
    Split("accumulation 4", (accumulate(4),)),
    Split("1, 2, 1 processes", ((), DDP, ())),
    Split("accumulation 4, 2 x 2, 1", (accumulate(4), (*DDP, *accumulate(2)), ())),
    Split("FSDP2, 2 processes", (FSDP,), FSDP_LOSS),
    Split("1, FSDP2, DDP", ((), FSDP, DDP), FSDP_LOSS),
)


class Seen(NamedTuple):
    """What a run did."""

    batches: dict[int, str]  # of each step, a hash
    losses: dict[int, float]
    gradients: dict[str, torch.Tensor]  # of the first step
    validation: float


def train(shop: SmallRuns, name: str, split: Split, optimizer: str) -> Seen:
    """Run all stages."""
    rows: dict[int, list[str]] = {}
    losses: dict[int, float] = {}
    for number, options in enumerate(split.stages):
        stop = round(STEPS * (number + 1) / len(split.stages))
        file = shop.root.parent / f"{name}-{number}"
        args = ["fit", "--name", name, *OPTIMIZERS[optimizer], *options]
        args += [OBSERVE, f"--trainer.callbacks.file={file}"]
        if number:
            args += ["--ckpt_path", "last"]
        if stop < STEPS:
            args += [STOP, f"--trainer.callbacks.step={stop}"]
        told = shop.start(*args).outcome(PATIENCE)
        assert told.status == (143 if stop < STEPS else 0), f"stage {number + 1}: {told.err}"
        for rank in range(2):
            for line in read_lines(file, rank):
                rows.setdefault(line["step"], []).extend(line["rows"])
                losses[line["step"]] = losses.get(line["step"], 0.0) + line["loss"]
    return Seen(
        {step: digest_of(found) for step, found in rows.items()},
        losses,
        load(shop.root.parent / f"{name}-0.gradients"),
        float(told.line("held out validation loss").split()[0]),
    )


def digest_of(rows: list[str]) -> str:
    return digest(torch.tensor([int(row[:15], 16) for row in sorted(rows)]))


@pytest.fixture(scope="module")
def undivided(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[SmallRuns, Seen]]:
    """By optimizer, the run of one process, and where it ran."""

    @cache
    def run(optimizer: str) -> tuple[SmallRuns, Seen]:
        shop = SmallRuns(tmp_path_factory.mktemp(optimizer), DOCUMENTS, OPTIONS)
        return shop, train(shop, "whole", Split("1 process", ((),)), optimizer)

    return run


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("split", SPLITS, ids=lambda split: split.name)
def test_a_split_changes_nothing_but_rounding(
    undivided: Callable[[str], tuple[SmallRuns, Seen]], split: Split, optimizer: str
) -> None:
    shop, base = undivided(optimizer)
    ours = train(shop, f"split{SPLITS.index(split)}", split, optimizer)
    steps = set(range(1, STEPS + 1))
    assert base.batches.keys() == steps and len(set(base.batches.values())) == STEPS
    assert ours.batches == base.batches
    largest = max(float(value.abs().max()) for value in base.gradients.values())
    for key, value in base.gradients.items():
        assert float((ours.gradients[key] - value).abs().max()) <= GRADIENT * largest, key
    if optimizer == "muon":
        assert abs(ours.validation - base.validation) <= MUON_VALIDATION * base.validation
    else:
        apart = {s: abs(ours.losses[s] - loss) / loss for s, loss in base.losses.items()}
        assert max(apart.values()) <= split.loss_limit
