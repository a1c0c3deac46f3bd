"""Errors that are told in one line, without a traceback.

`cli.main` shows these, errors of the operating system (a missing file, a full disk) and Lightning's
MisconfigurationException as `error: ...`; any other exception is a bug of ours. A library's refusal
of a setting becomes a `UserError` where objects are built (`commands/fit.py`), and the system's
refusal to write becomes one where a flag says where to (`writing`). `LIGHTNING_EMBED_TRACEBACK=1`
shows the traceback of any of them.
"""

import errno
import operator
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CANNOT_WRITE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EACCES: "this user may not write there",
    errno.EPERM: "this user may not write there",
    errno.EROFS: "its file system is read-only",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "its symbolic links lead in a circle",
}


def one_line(error: object) -> str:
    """What an error, or anything else, says, without line breaks."""
    return " ".join(str(error).split())


class UserError(ValueError):
    """What was asked for cannot be: the message has the value, the limit and the flag to change."""


class TrainingStopped(RuntimeError):
    """Training met what it must not go on with; the message names the step and the cause.

    Attributes:
        weights_are_good: they are worth a checkpoint, as what was met has not reached them.
    """

    weights_are_good = True


@contextmanager
def writing(folder: Path, flag: str, needed: Callable[[], str] = str) -> Iterator[None]:
    """Where writing to `folder` fails, say why and which flag names another place.

    Args:
        folder: what the flag names, or a path below it.
        flag: for example `--data.cache_dir`.
        needed: how much room is, in a few words with a comma before them; asked on a full disk.

    Raises:
        UserError: instead of the system's own error; errors of reading other files pass.
    """
    try:
        yield
    except OSError as error:
        why = CANNOT_WRITE.get(error.errno or 0)
        short = error.errno is None and "requested and" in str(error)  # NumPy's words for ENOSPC
        if short or error.errno in (errno.ENOSPC, errno.EDQUOT):
            why = f"{why or CANNOT_WRITE[errno.ENOSPC]}{needed()}"
        elif not _concerns(error, folder):
            raise
        elif isinstance(error, FileExistsError | NotADirectoryError):
            above = (folder, *folder.parents)
            parts = [path for path in above if os.path.lexists(path) and not path.is_dir()]
            if not parts:
                raise
            kind = "a file" if parts[0].is_file() else "no folder"
            why = f"{'it' if parts[0] == folder else parts[0]} is {kind}"
        elif isinstance(error, FileNotFoundError) and not folder.exists():  # as in /proc
            why = "nothing can be made there"
        if why is None:
            raise
        line = f"cannot write to {folder}: {why}; give another folder with {flag}"
        raise UserError(line) from error


def _concerns(error: OSError, folder: Path) -> bool:
    if error.filename is None:
        return True
    named, folder = Path(str(error.filename)).absolute(), folder.absolute()
    beside = named.parent == folder.parent and named.name.startswith(f".{folder.name}.")  # atomic
    return beside or named.is_relative_to(folder) or folder.is_relative_to(named)


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
