"""One process prepares a text, others that need the same tokens wait for it and say so.

The one holds a lock on a file, which the system lets go of when it is killed; one that waits then
goes on in its place. How far it is, and why it failed, stand in that file: who waits has it open,
also when its name is gone. (`filelock` has no such file: some versions empty it, and none leaves it
to those who wait.)

File systems of several hosts (NFS, Lustre) lock for all of them, some only if they were mounted so.
Where there is no lock, every process works for itself: see `prepared.py`.
"""

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from lightning_embed.console import say, short
from lightning_embed.errors import UserError, one_line

POLL_SECONDS = 0.1
FIRST_WORD, LATER_WORDS = 1.0, 60.0  # seconds of waiting before a line, and between two
LOCKED = 1 << 30  # where Windows locks a byte, behind what is read
HELD_ELSEWHERE = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)


class NoLocks(Exception):
    """The file system has none."""


class Lock:
    """What the process that holds the lock tells others."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.who: dict[str, Any] = {"process": os.getpid(), "host": socket.gethostname()}

    def tell(self, **state: Any) -> None:
        """Let those who wait know: `done` and `of`, in bytes of text, or `failed`, why."""
        self.file.seek(0)
        self.file.write(json.dumps({**self.who, **state}).encode())
        self.file.truncate()
        self.file.flush()


@contextmanager
def locked(path: Path, what: str) -> Iterator[Lock]:
    """Holds the lock in the block, after waiting for it.

    Args:
        path: of the file to lock; gone after the block.
        what: is waited for, in messages.

    Raises:
        UserError: whoever was waited for has failed.
        NoLocks: there are none.
    """
    file = _acquired(path, what)
    lock = Lock(file)
    try:
        lock.tell()
        yield lock
    except Exception as error:
        with suppress(OSError):  # a full disk
            lock.tell(failed=one_line(error))
        raise
    finally:
        _gone(path)
        file.close()


@contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Holds the lock in the block if nobody does, and says so."""
    try:
        file = _opened(path)
    except OSError:  # of another user
        yield False
        return
    with file:
        try:
            free = _try(file) and _is_at(path, file)
        except NoLocks:
            free = False
            _gone(path)
        try:
            yield free
        finally:
            if free:
                _gone(path)


def _opened(path: Path) -> IO[bytes]:
    """The file, made if there is none; what is in it stays."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "r+b")


def _acquired(path: Path, what: str) -> IO[bytes]:
    while True:
        file = _opened(path)
        try:
            if not _try(file):
                _wait(file, what)
            if _is_at(path, file):
                return file
        except BaseException as error:
            file.close()
            if isinstance(error, NoLocks):
                _gone(path)
            raise
        file.close()  # whoever had it is done, and has removed it


def _wait(file: IO[bytes], what: str) -> None:
    """Until the lock is ours, unless whoever holds it fails."""
    next_word, before = time.monotonic() + FIRST_WORD, ""
    while not _try(file):
        if time.monotonic() >= next_word:
            text = f"for {what}, which {_whom(_told(file))}"
            if text != before:
                say("waiting", text, anywhere=True)
            next_word, before = time.monotonic() + LATER_WORDS, text
        time.sleep(POLL_SECONDS)
    told = _told(file)
    if "failed" in told:
        raise UserError(f"{told['failed']} (process {told['process']} on {told['host']})")


def _whom(told: dict[str, Any]) -> str:
    if "process" not in told:
        return "another process prepares"
    done, whole = told.get("done", 0), told.get("of", 0)
    far = f"{100 * done / whole:.0f} % so far" if 0 < done <= whole else f"{short(done)}B so far"
    return f"process {told['process']} on {told['host']} prepares" + f": {far}" * bool(done)


def _told(file: IO[bytes]) -> dict[str, Any]:
    try:
        file.seek(0)
        told = json.loads(file.read())
    except (OSError, ValueError):  # just being written, or out of reach
        return {}
    return told if isinstance(told, dict) else {}


def _is_at(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _gone(path: Path) -> None:
    with suppress(OSError):  # Windows keeps a file that others have open
        path.unlink()


def _try(file: IO[bytes]) -> bool:
    """Whether the lock is ours now."""
    try:
        _lock(file)
    except OSError as error:
        if error.errno in HELD_ELSEWHERE:
            return False
        if error.errno in NO_LOCKS:
            raise NoLocks(one_line(error)) from None
        raise
    return True


def _lock(file: IO[bytes]) -> None:
    if os.name == "nt":
        import msvcrt

        file.seek(LOCKED)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
