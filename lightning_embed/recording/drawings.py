"""Pictures of a run, drawn with matplotlib, which is an extra: `lightning_embed[plots]`.

Each function takes arrays and gives a figure; `recording/pages.py` has the numbers.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lightning_embed.evaluation.breakdown import Part

SIZE = 6.0, 3.8  # inches
BLUE, ORANGE, GREY = "#3b6ea5", "#d9822b", "#8a8a8a"


def can_draw() -> bool:
    """Whether the extra is installed."""
    return find_spec("matplotlib") is not None


def pixels(figure: Figure) -> np.ndarray:
    """A figure as `(height, width, 3)` uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def loss_by_position(parts: list[Part]) -> Figure:
    """The mean loss of each range of positions in the window, with its interval."""
    figure, axes = _axes("position in the window", "loss, nats a token")
    means = [part.figures["loss"] for part in parts]
    places = np.arange(len(parts))
    values = np.array([mean.value for mean in means])
    axes.plot(places, values, color=BLUE, marker="o", label="held-out text")
    if all(mean.known for mean in means):
        low, high = [mean.low for mean in means], [mean.high for mean in means]
        axes.fill_between(places, low, high, color=BLUE, alpha=0.2, label="95 % interval")
    axes.set_xticks(places, [part.name for part in parts], rotation=45, ha="right")
    axes.set_title("Loss by position in the window")
    axes.legend(frameon=False)
    return figure


def norm_by_frequency(norms: np.ndarray, counts: np.ndarray, padding: int) -> Figure:
    """Each row's norm against how often its token comes, both `(V,)`; the padding row is marked."""
    figure, axes = _axes("times in the training text, plus 1", "norm of the vector")
    tokens = np.arange(len(norms)) != padding
    axes.scatter(
        counts[tokens] + 1, norms[tokens], s=6, alpha=0.4, color=BLUE, linewidths=0, label="tokens"
    )
    axes.scatter([1], [norms[padding]], s=90, marker="X", color=ORANGE, label="padding", zorder=3)
    axes.set_xscale("log")
    axes.set_ylim(bottom=min(0.0, float(norms.min())) - 0.03 * float(norms.max()))
    axes.annotate(
        f"padding: {norms[padding]:g}", (1, norms[padding]), (10, 6), textcoords="offset points"
    )
    axes.set_title("Norm of each token's vector")
    axes.legend(frameon=False, loc="center right")
    return figure


def window_lengths(lengths: np.ndarray, padded: dict[str, float]) -> Figure:
    """How many windows have each length, and the share of positions each layout pads."""
    figure, axes = _axes("tokens in a window", "windows")
    axes.hist(lengths, bins=min(64, max(1, int(lengths.max(initial=1)))), color=BLUE)
    said = "\n".join(f"{layout}: {100 * share:.1f} % padding" for layout, share in padded.items())
    axes.text(0.5, 0.95, said, transform=axes.transAxes, ha="center", va="top", color="black")
    axes.set_title("Lengths of the training text's windows")
    return figure


def _axes(x: str, y: str) -> tuple[Figure, Axes]:
    """Without pyplot, whose figures are global."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, dpi=120, layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(True, color=GREY, alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes
