"""Learning-rate schedules: the rate at each step as a fraction of its peak."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal


def schedule_factor(
    step: int,
    *,
    schedule: Literal["wsd", "cosine", "constant"],
    total_steps: int,
    warmup_steps: int,
    decay_fraction: float,
    final_fraction: float,
) -> float:
    """The learning rate at optimizer step `step` (0-based) as a fraction of its peak.

    "wsd" (warm-up, stable, decay; Hu et al., arXiv:2404.06395) decays linearly over the last
    `decay_fraction` of the steps, "cosine" over all steps after warm-up, both to `final_fraction`.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    start = warmup_steps
    if schedule == "wsd":
        start = max(warmup_steps, total_steps - round(total_steps * decay_fraction))
    progress = min(1.0, max(0.0, (step - start) / max(1, total_steps - start)))
    fall = 1 - progress if schedule == "wsd" else 0.5 * (1 + math.cos(math.pi * progress))
    return final_fraction + (1 - final_fraction) * fall


def lr_schedule(settings: Mapping[str, Any]) -> Callable[[int], float]:
    """`schedule_factor` as a function of the step alone, from hyperparameters of `LanguageModel`;
    `schedule_steps` must be set, and warm-up is 2 % of them by default."""
    total, warmup = settings["schedule_steps"], settings["warmup_steps"]
    return partial(
        schedule_factor,
        schedule=settings["schedule"],
        total_steps=total,
        warmup_steps=max(1, round(0.02 * total)) if warmup is None else warmup,
        decay_fraction=settings["decay_fraction"],
        final_fraction=settings["final_fraction"],
    )
