"""Errors that are told in one line, without a traceback; every other exception is a bug of ours.

`cli.main` shows these, and errors of the operating system (a missing file, a full disk), as
`error: ...`. A library's refusal of a setting becomes a `UserError` where objects are built
(`commands/fit.py`). `LIGHTNING_EMBED_TRACEBACK=1` shows the traceback of any of them.
"""


class UserError(ValueError):
    """What was asked for cannot be: the message has the value, the limit and the flag to change."""


class TrainingStopped(RuntimeError):
    """Training met what it must not go on with; the message names the step and the cause."""
