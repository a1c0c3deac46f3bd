"""A mixture: how often an epoch has each of several sources, and which of their windows.

Of source i with t_i real targets and the share w_i an epoch takes w_i * T targets, which are
p_i = w_i * T / t_i passes over it. T is chosen so that the source that is repeated least is seen
exactly once; a source that would be seen more than `max_passes` times is seen so many times, and
its share falls.

Of p = 2.3 passes two are all windows of the source, and 0.3 are m of its n windows: sorted by
length (ties in random order), the j-th of them is window floor((j * n + x) / m), with
x = m * epoch + a random number, modulo n. This way

- every window is drawn equally often, each within n / m epochs;
- the lengths that are drawn hardly change, so the targets of an epoch are exact to two windows of
  each source, whatever the epoch;
- the j-th place is never longer than window floor((j * n + n - 1) / m). As much room is planned for
  it in every epoch, so that all have the same number of batches.

All of it is a pure function of lengths, sources, shares, seed and epoch.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import NamedTuple

import numpy as np

from lightning_embed.data.plan import Draw
from lightning_embed.data.windows import Windows, numbered
from lightning_embed.errors import UserError, require_range

MOST_PASSES = 1000.0
MOST, LEAST = 1e9, 1e-6  # of a number in a mix, and of a share
MAX_PASSES = 4.0  # repeated up to four times, text is nearly as good as new (arXiv:2305.16264)


class Ingredient(NamedTuple):
    """A source of a mixture."""

    name: str
    tokens: int  # real targets
    asked: float  # share of an epoch
    had: float
    passes: float  # over the source in an epoch


def normalised(mix: Mapping[str, float], names: list[str]) -> dict[str, float]:
    """Shares that add up to 1, in the order of `names`.

    Args:
        mix: by name, any numbers that are not negative; a source with 0 trains nothing, and is
            evaluated.
        names: of all sources.

    Raises:
        UserError: a name or a number that cannot be.
    """
    for name in mix:
        if name not in names:
            near = get_close_matches(name, names, n=1)
            hint = f" (did you mean {near[0]}?)" if near else f": there are {', '.join(names)}"
            raise UserError(f"--data.mix names {name}, which is not in --data.sources{hint}")
        require_range(f"--data.mix.{name}", mix[name], at_least=0, at_most=MOST)
    missing = [name for name in names if name not in mix]
    if missing:
        raise UserError(
            f"--data.mix has no share of {', '.join(missing)}: give each source one, or 0 to"
            " only evaluate it"
        )
    total = sum(mix.values())
    if not total:
        raise UserError("--data.mix has nothing but zeros: give some source a share")
    for name, share in mix.items():
        if 0 < share < total * LEAST:
            raise UserError(
                f"--data.mix.{name} is {share:g} of {total:g} in all: give at least {LEAST:g} of"
                " it, or 0 to only evaluate it"
            )
    return {name: round(mix[name] / total, 12) for name in names}


def passes_of(tokens: np.ndarray, shares: np.ndarray, max_passes: float) -> np.ndarray:
    """Passes over each source in an epoch.

    Args:
        tokens: `(sources,)` real targets, positive where there is a share.
        shares: `(sources,)` of an epoch.
        max_passes: at most, and at least 1.
    """
    used = shares > 0
    whole = (tokens[used] / shares[used]).max()  # targets of an epoch without the limit
    passes = np.zeros(len(tokens))
    passes[used] = np.minimum(shares[used] * whole / tokens[used], max_passes)
    return passes


class Mixture:
    """Draws the windows of each epoch.

    Args:
        windows: of all sources.
        source: `(N,)` number of each window's source.
        shares: of an epoch, by name, in the order of these numbers; see `normalised`.
        max_passes: over a source in an epoch at most.
        seed: of the draw.

    Raises:
        UserError: a source with a share has nothing to train on.
    """

    def __init__(
        self,
        windows: Windows,
        source: np.ndarray,
        shares: Mapping[str, float],
        max_passes: float,
        seed: int,
    ) -> None:
        asked = np.array(list(shares.values()))
        targets = np.bincount(source, windows.targets, len(asked))
        for name, share, tokens in zip(shares, asked, targets, strict=True):
            if share and not tokens:
                raise UserError(
                    f"--data.mix.{name} is {share:g}, but {name} has nothing to train on: give it 0"
                )
        passes = passes_of(targets, asked, max_passes)
        had = passes * targets / (passes * targets).sum()
        columns = (x.tolist() for x in (targets.astype(np.int64), asked, had, passes))
        self.ingredients = [Ingredient(*row) for row in zip(shares, *columns, strict=True)]
        rng = np.random.default_rng([seed, 0x6D6978])
        self._length = windows.length
        numbers = numbered(len(windows))
        self._drawn: list[tuple[np.ndarray, int, int]] = []  # sorted windows, how many, first x
        for number, times in enumerate(passes):
            own = rng.permutation(numbers[source == number])
            own = own[np.argsort(self._length[own], kind="stable")]
            if times:
                self._drawn.append((own, round(times * len(own)), int(rng.integers(len(own)))))
        self.targets = int(windows.targets[self.draw(0).windows].sum())  # of an epoch

    @property
    def unique(self) -> int:
        """Real targets of all that trains."""
        return sum(each.tokens for each in self.ingredients if each.passes)

    @property
    def most_passes(self) -> float:
        """Over the source that is repeated most."""
        return max(each.passes for each in self.ingredients)

    def draw(self, epoch: int) -> Draw:
        """The windows of an epoch."""
        found, room = [], []
        for own, count, first in self._drawn:
            n = len(own)
            whole, m = divmod(count, n)
            x = (first + epoch * m) % n
            places = np.arange(m, dtype=np.int64) * n
            found += [own] * whole + ([own[(places + x) // m]] if m else [])
            longest = [own] * whole + ([own[(places + n - 1) // m]] if m else [])
            room += [self._length[each] for each in longest]
        return Draw(np.concatenate(found), np.concatenate(room))
