"""How much of what is computed would be padding, in each layout of rows."""

from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from lightning_embed.data.batch import lay_out, repack_rows
from lightning_embed.data.plan import BatchSettings, Draw, Layout, plan_epoch
from lightning_embed.data.windows import Windows

WINDOWS = 1_000_000  # planned; of more, a draw
BATCHES = 200  # repacked, evenly spread over the epoch


@dataclass(frozen=True)
class Padding:
    """Of one layout.

    Attributes:
        layout: which.
        windows: how many were planned.
        is_draw: whether there are more.
        batches: global batches of an epoch of these windows.
        padding: share of the positions of rows that hold no token.
        repacked: the same once rows are repacked, judged by `looked_at` of the batches.
    """

    layout: Layout
    windows: int
    is_draw: bool
    batches: int
    padding: float
    repacked: float
    looked_at: int


def paddings(
    windows: Windows, settings: BatchSettings, seed: int, draw: Draw | None = None
) -> list[Padding]:
    """Of every layout, with the other settings as they are.

    Args:
        windows: of the training text.
        settings: of its batches.
        seed: of their order.
        draw: the windows of an epoch of a mixture.
    """
    is_part = len(windows if draw is None else draw.windows) > WINDOWS
    if is_part and draw is not None:
        places = np.random.default_rng(seed).choice(len(draw.windows), WINDOWS, replace=False)
        draw = Draw(draw.windows[places], draw.room[places])
    elif is_part:
        windows = windows.draw(float(windows.targets.sum()) * WINDOWS / len(windows))
    return [
        _padding(windows, draw, is_part, replace(settings, layout=layout), seed)
        for layout in get_args(Layout)
    ]


def _padding(
    windows: Windows, draw: Draw | None, is_part: bool, settings: BatchSettings, seed: int
) -> Padding:
    plan = plan_epoch(windows, settings, seed=seed, epoch=0, draw=draw)
    chosen = np.unique(np.linspace(0, len(plan) - 1, min(BATCHES, len(plan))).astype(int))
    before = after = 0
    for batch in chosen.tolist():
        micro = plan.micro_batch(batch, index=0, n_micro=1)
        sizes = windows[micro.windows].length  # a draw may be of many more
        layout = lay_out(sizes, micro.row, micro.n_rows, micro.width)
        repack, _ = repack_rows(sizes, layout, micro.n_rows, micro.width)
        before += micro.n_rows * micro.width
        after += micro.n_rows * micro.width if repack is None else repack.numel()
    held, positions = int(windows[plan.order].length.sum()), max(1, plan.positions())
    return Padding(
        layout=settings.layout,
        windows=len(plan.order),
        is_draw=is_part,
        batches=len(plan),
        padding=1 - held / positions,
        repacked=max(0.0, 1 - held / (positions * after / before)),
        looked_at=len(chosen),
    )
