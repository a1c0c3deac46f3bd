"""The same 200 steps however a batch is split: processes, accumulation, changes in mid-run, shards.

    python benchmarks/splits.py [--only adamw] [--match FSDP2]

Float32, eager, one thread a process, with AdamW and with Muon. Every run is compared with that of
one process: at each step the text of the global batch (a hash over its rows, from all processes
and micro-batches, in no order) and its loss; the first step's gradients; weights and validation
loss in the end. A change in mid-run is a SIGTERM and a resume with other options.

AdamW: losses within 1e-6 relative, of FSDP2 1e-5. Its learning rate is 0.001: at 0.003 this small
network's training is chaotic, and from step 60 on a difference in the last digit grows tenfold
every 20 steps, whoever causes it. Muon, whose Newton-Schulz iteration runs in
bfloat16: first gradients within 1e-5 of the largest, validation loss within 1 %. Leaves with status
1 if a limit is broken.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from observers import digest, read_lines
from small_runs import ROOT, SmallRuns, load

from lightning_embed.checkpointing.files import read_checkpoint

STEPS, DOCUMENTS = 200, 200
PATIENCE = 300  # seconds, after which processes that wait for each other are ended (status -9)
OPTIONS = ("--trainer.max_steps", str(STEPS), "--early_stopping.patience", "1000")
LEARNING_RATE = {"adamw": ("--model.lr", "0.001"), "muon": ()}
DDP = ("--trainer.strategy", "ddp", "--trainer.devices", "2")
FSDP = ("--config", str(ROOT / "configs" / "fsdp.yaml"))
STOP = "--trainer.callbacks+=workshop.SignalAt"
OBSERVE = "--trainer.callbacks+=observers.Batches"
ADAMW_LOSS, FSDP_LOSS, MUON_GRADIENT, MUON_VALIDATION = 1e-6, 1e-5, 1e-5, 0.01


def accumulate(number: int) -> tuple[str, ...]:
    return ("--trainer.accumulate_grad_batches", str(number))


class Split(NamedTuple):
    """How a run is divided, in stages of equal length."""

    name: str
    stages: tuple[tuple[str, ...], ...]
    loss_limit: float = ADAMW_LOSS


SPLITS = (
    Split("1 process", ((),)),
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

    batches: dict[int, str]
    losses: dict[int, float]
    gradients: dict[str, torch.Tensor]
    weights: dict[str, torch.Tensor]
    validation: float


class Failed(RuntimeError):
    """A run that did not end as it should."""


def train(shop: SmallRuns, name: str, split: Split, optimizer: str) -> Seen:
    """Run all stages.

    Raises:
        Failed: with what it said.
    """
    rows: dict[int, list[str]] = {}
    losses: dict[int, float] = {}
    steps = [round(STEPS * n / len(split.stages)) for n in range(1, len(split.stages) + 1)]
    for number, (options, stop) in enumerate(zip(split.stages, steps, strict=True)):
        file = shop.root.parent / f"{name}-{number}"
        args = ["fit", "--name", name, "--model.optimizer", optimizer, *options]
        args += LEARNING_RATE[optimizer]
        args += [OBSERVE, f"--trainer.callbacks.file={file}"]
        if number:
            args += ["--ckpt_path", "last"]
        if stop < STEPS:
            args += [STOP, f"--trainer.callbacks.step={stop}"]
        told = shop.start(*args).outcome(PATIENCE)
        if told.status != (143 if stop < STEPS else 0):
            said = (told.err.strip().splitlines() or ["nothing"])[-1]
            raise Failed(f"stage {number + 1} ended with {told.status}: {said}")
        for rank in range(2):
            for line in read_lines(file, rank):
                rows.setdefault(line["step"], []).extend(line["rows"])
                losses[line["step"]] = losses.get(line["step"], 0.0) + line["loss"]
    return Seen(
        {step: digest_of(found) for step, found in rows.items()},
        losses,
        load(shop.root.parent / f"{name}-0.gradients"),
        read_checkpoint(shop.checkpoint(name))["state_dict"],
        float(told.line("held out validation loss").split()[0]),
    )


def digest_of(rows: list[str]) -> str:
    return digest(torch.tensor([int(row[:15], 16) for row in sorted(rows)]))


def farthest(ours: dict[str, Any], theirs: dict[str, Any], relative: bool = False) -> float:
    """The largest difference between two sets of tensors, over the largest value or as it is."""
    apart = max(float((ours[key] - theirs[key]).abs().max()) for key in theirs)
    return apart / max(float(value.abs().max()) for value in theirs.values()) if relative else apart


def compare(name: str, optimizer: str, split: Split, ours: Seen, base: Seen) -> tuple[str, bool]:
    """A line of the table, and whether every limit holds."""
    steps = range(1, STEPS + 1)
    equal = sum(ours.batches.get(s) == base.batches[s] for s in steps)
    losses = max(
        abs(ours.losses[s] - base.losses[s]) / base.losses[s] for s in steps if s in ours.losses
    )
    gradient = farthest(ours.gradients, base.gradients, relative=True)
    validation = abs(ours.validation - base.validation) / base.validation
    good = equal == STEPS and ours.batches.keys() == set(steps)
    if optimizer == "adamw":
        good &= losses <= split.loss_limit
    else:
        good &= gradient <= MUON_GRADIENT and validation <= MUON_VALIDATION
    return (
        f"| {optimizer} | {name} | {equal} of {STEPS} | {losses:.1e} | {gradient:.1e}"
        f" | {farthest(ours.weights, base.weights):.1e} | {ours.validation:.4f}"
        f" | {'yes' if good else 'NO'} |"
    ), good


def main() -> None:
    from results import record

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=("adamw", "muon"))
    parser.add_argument("--match", default="", help="splits whose name contains this")
    given = parser.parse_args()
    table = [
        "| optimizer | split | batches equal | loss, largest relative difference | first gradient,"
        " of the largest | weights, largest difference | validation loss | within limits |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    fine = True
    began = time.monotonic()
    for optimizer in ("adamw", "muon"):
        if given.only not in (None, optimizer):
            continue
        with tempfile.TemporaryDirectory() as folder:
            shop = SmallRuns(Path(folder), DOCUMENTS, OPTIONS)
            base = None
            for number, split in enumerate(SPLITS):
                if base is not None and given.match not in split.name:
                    continue
                try:
                    ours = train(shop, f"split{number}", split, optimizer)
                    base = base or ours
                    line, good = compare(split.name, optimizer, split, ours, base)
                except Failed as error:
                    line, good = f"| {optimizer} | {split.name} | {error} | | | | | NO |", False
                    if base is None:
                        raise SystemExit(line) from None
                print(line, flush=True)
                table.append(line.replace(folder, "."))
                fine &= good
    took = (time.monotonic() - began) / 60
    text = f"Float32, eager, {STEPS} steps; {took:.0f} minutes.\n\n" + "\n".join(table)
    record("The same training however it is split", text)
    raise SystemExit(0 if fine else 1)


if __name__ == "__main__":
    main()
