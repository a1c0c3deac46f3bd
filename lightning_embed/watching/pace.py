"""`Pace`: at which steps a run is looked at, when a line of progress is due, how much time is left.

A look at the loss is a collective call and waits for a GPU. Its steps follow from their numbers
alone, so that all processes agree on them; the clock only decides which looks become lines.
"""

import time
from collections.abc import Callable

LINES = 20  # at most, after the first: one for every 5 % of the run
BETWEEN = 30.0  # seconds between two lines, at least
FIRST = 5.0  # seconds of training before the first line; looks are close enough for 15


class Pace:
    """Of one process' part of a run, from its first step or its resume to the last step.

    Args:
        total: optimizer steps of the whole run.
        every: steps between two entries in the loggers, which are looks in any case.
        first_step: steps done before, by the run that is resumed.
        clock: seconds, from any beginning.
    """

    def __init__(
        self,
        total: int,
        every: int,
        first_step: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.total, self.first_step, self.clock = total, first_step, clock
        self.often = max(1, min(every, total // LINES))
        self._settled = clock(), first_step  # when, after which step
        self._line: tuple[float, int] | None = None  # the last: when, in which 5 % of the run

    def looks(self, step: int) -> bool:
        """Whether a look follows this step: the first four and each doubling, because nobody knows
        yet how long a step takes; then at least one in 5 % of the run; and the last."""
        done = step - self.first_step
        early = done == 3 or done & (done - 1) == 0
        return early or step % self.often == 0 or step == self.total

    def settle(self, step: int) -> None:
        """Time from here on: this step was the first one, or compiled. A line is due soon."""
        self._settled = self.clock(), step
        self._line = None

    def due(self, step: int) -> bool:
        """Whether the look at this step becomes a line; asked once a look."""
        now, part = self.clock(), step * LINES // max(1, self.total)
        if step == self.total:
            return True
        if self._line is None:
            due = now - self._settled[0] >= FIRST
        else:
            due = now - self._line[0] >= BETWEEN and part > self._line[1]
        if due:
            self._line = now, part
        return due

    def left(self, step: int) -> float | None:
        """Seconds to the last step, as those since `settle` went; None before any."""
        since, settled = self._settled
        if step <= settled:
            return None
        return (self.clock() - since) / (step - settled) * (self.total - step)
