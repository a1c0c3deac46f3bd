"""Errors that are told in one line, without a traceback.

`cli.main` shows these, errors of the operating system (a missing file, a full disk) and Lightning's
MisconfigurationException as `error: ...`; any other exception is a bug of ours. A library's refusal
of a setting becomes a `UserError` where objects are built (`commands/fit.py`).
`LIGHTNING_EMBED_TRACEBACK=1` shows the traceback of any of them.
"""


def one_line(error: object) -> str:
    """What an error, or anything else, says, without line breaks."""
    return " ".join(str(error).split())


class UserError(ValueError):
    """What was asked for cannot be: the message has the value, the limit and the flag to change."""


class TrainingStopped(RuntimeError):
    """Training met what it must not go on with; the message names the step and the cause."""
