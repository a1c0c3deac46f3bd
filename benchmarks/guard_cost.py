"""What `PaddingGuard` costs: time inside its hooks as a share of a step of the default shape.

    python benchmarks/guard_cost.py

`configs/stdlib.yaml`'s model and batch on made-up ids, with the precision and compilation that the
default run takes on this machine. Hooks are timed by a clock round them; a step is the time from
one batch's start to the next. Medians, so that neighbours on the machine count little. On a GPU the
hooks' time is that of issuing their work, and what they issue is synchronised at both ends.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from results import Measured, Row, record
from torch.utils.data import DataLoader

from lightning_embed import LanguageModel, PaddingGuard
from lightning_embed.data.batch import Batch
from lightning_embed.padding.evidence import RowWatch

ROWS, LENGTH, VOCABULARY = 8, 256, 4096
STEPS, WARM = 60, 15
CONFIG = Path(__file__).resolve().parent.parent / "configs" / "stdlib.yaml"


class Clock:
    """Time spent inside wrapped functions since the last `take`."""

    def __init__(self) -> None:
        self.spent, self._depth = 0.0, 0

    def round(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._depth:  # inside another hook already
                return function(*args, **kwargs)
            self._depth += 1
            began = now()
            try:
                return function(*args, **kwargs)
            finally:
                self.spent += now() - began
                self._depth -= 1

        return timed

    def take(self) -> float:
        spent, self.spent = self.spent, 0.0
        return spent


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Laps(L.Callback):
    """Seconds of each step, and of the guard in it."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.steps: list[float] = []
        self.guard: list[float] = []
        self._began = 0.0

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step:
            self.steps.append(now() - self._began)
            self.guard.append(self.clock.take())
        self._began = now()


def batch() -> Batch:
    ids = torch.randint(4, VOCABULARY, (ROWS, LENGTH + 1))
    zeros = torch.zeros(ROWS, dtype=torch.long)
    return Batch(ids[:, :-1], ids[:, 1:], zeros, zeros, ROWS * LENGTH, ROWS * LENGTH)


def main() -> None:
    torch.manual_seed(0)
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    assert config["data"]["tokens_per_batch"] == ROWS * LENGTH
    clock = Clock()
    hooks = [name for name in vars(PaddingGuard) if name.startswith("on_")]
    guard = PaddingGuard()
    for name in hooks:
        setattr(guard, name, clock.round(getattr(guard, name)))
    # The hook after the optimizer's step is a closure round this one.
    RowWatch.look_after_step = clock.round(RowWatch.look_after_step)  # type: ignore[method-assign]
    laps = Laps(clock)
    trainer = L.Trainer(
        max_steps=STEPS,
        precision="bf16-mixed",
        gradient_clip_val=config["trainer"]["gradient_clip_val"],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[laps, guard],
    )
    module = LanguageModel(VOCABULARY, LENGTH, **config["model"])
    data = DataLoader([batch() for _ in range(STEPS)], batch_size=None)  # type: ignore[arg-type]
    trainer.fit(module, data)
    steps, inside = laps.steps[WARM:], laps.guard[WARM:]
    step, spent = statistics.median(steps), statistics.median(inside)
    share = statistics.median(a / b for a, b in zip(inside, steps, strict=True))
    row = Row(
        "the guard's time to a step's",
        Measured("PaddingGuard's hooks", {"µs": 1e6 * spent}),
        Measured("the default model, bf16-mixed, compiled, Muon", {"ms a step": 1000 * step}),
        share,
        at_most=0.005,
    )
    how = f"{ROWS} rows of {LENGTH}, {VOCABULARY:,} words; medians of {len(steps)} steps."
    record("guard_cost", how, [row])


if __name__ == "__main__":
    main()
