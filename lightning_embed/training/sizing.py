"""What size of run suits this text and this much time: a network's shape, batch, learning rates,
dropout and number of steps, by a rule that was fitted on a ladder of runs.

How good a run becomes is predicted by a scaling law for repeated text (Muennighoff et al.,
arXiv:2305.16264):

    bits per byte = E + A / N**ALPHA + B / D**BETA

where N are the network's parameters, those beyond what the text can teach counting for less, and D
the training tokens, one read again counting for less. E is the text's own and does not matter for
a choice. `benchmarks/ladder.py` made the ladder and fitted the constants. Nothing here is measured:
what a step costs on this machine is asked for.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

WIDTHS = (64, 96, 128, 192, 256, 320, 384, 512, 640, 768, 1024)
WORTH = 0.005  # part of the loss that a larger shape must gain
# Up to so many passes over the text, and the probability.
DROPOUT = ((2.0, 0.0), (5.0, 0.1), (20.0, 0.2), (math.inf, 0.3))
USEFUL_PASSES = 40.0  # further ones help no more, whatever the dropout


class Law(NamedTuple):
    """Constants of the scaling law; `half_life` is in passes over the text, `teaches` in parameters
    for each of its tokens."""

    a: float
    alpha: float
    b: float
    beta: float
    half_life: float  # passes after which a token read again is worth 1/e of a new one
    teaches: float  # more parameters than this are worth less, at most 6.3 times as many

    def useful(self, parameters: float, unique: float) -> float:
        """As many as are worth as much as `parameters` where there is text for all."""
        taught = min(parameters, self.teaches * unique)
        return taught * (1 + 5.3 * -math.expm1(-(parameters / taught - 1) / 5.3))

    def effective(self, tokens: float, unique: float) -> float:
        """New tokens that are worth as much as `tokens` drawn from `unique` ones."""
        again = max(0.0, tokens / unique - 1)
        return min(tokens, unique) + unique * self.half_life * -math.expm1(-again / self.half_life)

    def loss(self, parameters: float, tokens: float, unique: float) -> float:
        """Bits per byte above what the text itself needs."""
        useful, effective = self.useful(parameters, unique), self.effective(tokens, unique)
        return self.a / useful**self.alpha + self.b / effective**self.beta


LAW = Law(a=38.6, alpha=0.34, b=54.82, beta=0.28, half_life=32.0, teaches=0.25)


class Shape(NamedTuple):
    """Width, depth and heads of a network, by the options' names."""

    d_model: int
    n_layers: int
    n_heads: int

    @property
    def parameters(self) -> int:
        """Of the blocks' matrices: attention 4 D**2, feed-forward 8 D**2."""
        return 12 * self.d_model**2 * self.n_layers


class Cost(NamedTuple):
    """Seconds of an optimizer step: `fixed + each * positions`."""

    fixed: float
    each: float

    def step(self, positions: float) -> float:
        return self.fixed + self.each * positions

    def times(self, factor: float) -> "Cost":
        return Cost(factor * self.fixed, factor * self.each)


class Size(NamedTuple):
    """A run: what is trained, on batches of how many positions, for how many steps."""

    shape: Shape
    batch: int
    steps: int
    dropout: float
    loss: float  # predicted, see `Law.loss`
    seconds: float  # that its steps take


class Text(NamedTuple):
    """What the rule must know of a text.

    Args:
        unique: tokens to train on.
        vocabulary: ids.
        max_length: positions of a window.
    """

    unique: int
    vocabulary: int
    max_length: int

    @property
    def whole(self) -> int:
        """Positions of a batch of all of it, in rows: a larger one would be padding."""
        return -(-self.unique // self.max_length) * self.max_length


class Kept(NamedTuple):
    """What the user has chosen; None is left to the rule."""

    d_model: int | None = None
    n_layers: int | None = None
    n_heads: int | None = None
    n_kv_heads: int | None = None
    batch: int | None = None
    steps: int | None = None
    dropout: float | None = None


def shapes(kept: Kept) -> list[Shape]:
    """Candidates, the smallest first: four layers up to width 256, then one for each 64."""
    found = []
    for width in WIDTHS if kept.d_model is None else (kept.d_model,):
        groups = max(1, kept.n_kv_heads or 1)
        heads = heads_of(width, groups) if kept.n_heads is None else kept.n_heads
        if kept.d_model is None and (width % max(1, 2 * heads) or heads % groups):
            continue  # heads that this width cannot have
        layers = max(4, width // 64) if kept.n_layers is None else kept.n_layers
        found.append(Shape(width, layers, heads))
    return found


def heads_of(width: int, groups: int = 1) -> int:
    """Heads of 64, or of 32 where 64 does not divide the width, or of the next larger even size
    that does; a multiple of `groups`, or 1 where the width has none."""
    most = max(groups, width // (64 if width % 64 == 0 and width > 64 else 32))
    fitting = (h for h in range(most, 1, -1) if width % (2 * h) == 0 and h % groups == 0)
    return next(fitting, 1)


def batch_size(tokens: float, max_length: int) -> int:
    """Positions of a batch for a run over so many tokens, in whole rows: the more tokens, the less
    a larger batch loses (tokens**0.38). The default run's 2,048 serve from 1 million, where 1,024
    was worse on the ladder, to its own 4.2 million."""
    beyond = min(1.0, tokens / 1e6) * max(1.0, tokens / 4.2e6)
    return max(1, round(2048 * beyond**0.38 / max_length)) * max_length


def learning_rates(batch: int, width: int) -> tuple[float, float]:
    """Peaks for AdamW's parameters and for Muon's matrices: the root of the batch; AdamW's falls
    with the root of the width."""
    root = min(2.0, math.sqrt(batch / 2048))
    return 0.006 * root * math.sqrt(128 / width), 0.015 * root


def dropout(passes: float) -> float:
    """The probability that suits so many passes over a text."""
    return next(p for most, p in DROPOUT if passes <= most)


def choose(
    seconds: float, text: Text, kept: Kept, cost: Callable[[Shape, int], Cost | None]
) -> Size | None:
    """The run of the lowest predicted loss whose steps take `seconds`.

    Args:
        seconds: for all steps.
        text: to train on.
        kept: what the user has chosen.
        cost: measures a shape's step at about so many positions; None if it cannot run here. Asked
            from the smallest shape on, and no longer once larger ones lose by a prediction that
            takes their steps to cost as much more as they have more parameters.

    Returns:
        None if no shape can run.
    """
    best: Size | None = None
    last: tuple[Shape, Cost] | None = None
    for shape in shapes(kept):
        if best is not None and last is not None:
            ratio = work(shape, text.vocabulary) / work(last[0], text.vocabulary)
            likely = Cost(last[1].fixed, last[1].each * ratio**0.9)
            if size_at(seconds, text, kept, shape, likely).loss > (1 + WORTH) * best.loss:
                break
        batch = best.batch if best else kept.batch or 8 * text.max_length
        measured = cost(shape, min(batch, text.whole))
        if measured is None:
            break
        found, last = size_at(seconds, text, kept, shape, measured), (shape, measured)
        if best is None or found.loss < (1 - WORTH) * best.loss:
            best = found
    return best


def work(shape: Shape, vocabulary: int) -> int:
    """Weights that multiply each token."""
    return shape.parameters + shape.d_model * vocabulary


def size_at(seconds: float, text: Text, kept: Kept, shape: Shape, cost: Cost) -> Size:
    """The run of this shape that takes `seconds`, or less where the text is exhausted before."""
    if kept.steps is not None:
        steps = kept.steps
        room = (seconds / steps - cost.fixed) / cost.each
        rows = max(1, int(room / text.max_length))
        batch = kept.batch or min(rows * text.max_length, text.whole)
    else:
        batch = kept.batch or _batch_at(seconds, text, cost)
        most = USEFUL_PASSES * text.unique / batch
        steps = max(1, int(min(seconds / cost.step(batch), most)))
    tokens, takes = steps * batch, steps * cost.step(batch)
    rate = dropout(tokens / text.unique) if kept.dropout is None else kept.dropout
    loss = LAW.loss(work(shape, text.vocabulary), tokens, text.unique)
    late = math.inf if takes > 1.1 * seconds else 0.0  # with steps that the user has chosen
    return Size(shape, batch, steps, rate, loss + late, takes)


def _batch_at(seconds: float, text: Text, cost: Cost) -> int:
    """Positions of a batch for a run of `seconds`, whose tokens depend on the batch in turn."""
    row, most = text.max_length, USEFUL_PASSES * text.unique
    batch = row
    for _ in range(20):
        tokens = seconds / cost.step(batch) * batch
        batch = batch_size(min(tokens, most), row)
        if tokens < most:  # a step that is mostly waiting holds twice as much for nothing
            batch = max(batch, min(2 * batch, int(cost.fixed / cost.each / row) * row))
    return batch
