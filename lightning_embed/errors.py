"""Errors that are told in one line, without a traceback; every other exception is a bug of ours.

`cli.main` shows these, and errors of the operating system (a missing file, a full disk), as
`error: ...`. A library's refusal of a setting becomes a `UserError` where objects are built
(`commands/fit.py`). `LIGHTNING_EMBED_TRACEBACK=1` shows the traceback of any of them.
"""

import operator


class UserError(ValueError):
    """What was asked for cannot be: the message has the value, the limit and the flag to change."""


class TrainingStopped(RuntimeError):
    """Training met what it must not go on with; the message names the step and the cause.

    Attributes:
        weights_are_good: they are worth a checkpoint, as what was met has not reached them.
    """

    weights_are_good = True


def require_range(
    flag: str,
    value: float | None,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> None:
    """Refuse a setting outside its limits; None is left to whoever chooses the value.

    Raises:
        UserError: `value` breaks a limit, as NaN breaks every one; names `flag`, limits and value.
    """
    limits = (
        ("at least", at_least, operator.ge),
        ("above", above, operator.gt),
        ("at most", at_most, operator.le),
        ("below", below, operator.lt),
    )
    given = [(words, limit, holds) for words, limit, holds in limits if limit is not None]
    if value is not None and not all(holds(value, limit) for _, limit, holds in given):
        wanted = " and ".join(f"{words} {limit}" for words, limit, _ in given)
        raise UserError(f"{flag} must be {wanted}, not {value}")
