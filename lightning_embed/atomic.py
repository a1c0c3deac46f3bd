"""Files and folders that are whole or not there: written under another name, then renamed.

The other name is in the same folder, because a rename is one step only within a file system.
"""

import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TEMPORARY = ".tmp-"
OWNER = re.compile(r"(?P<host>.+)-(?P<pid>\d+)-(?P<start>\d+)")
OWNED = re.compile(f"{re.escape(TEMPORARY)}(?P<owner>{OWNER.pattern})-[0-9a-f]{{8}}")


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path to write a file or a folder at, which takes `target`'s name and place when the block
    ends, and is removed when it ends in an exception."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # Not mkstemp, whose files nobody else may read, whatever the umask says.
    temporary = temporary_name(target, os.getpid())
    try:
        yield temporary
        put_in_place(temporary, target)
    except BaseException:
        remove(temporary)
        raise


def temporary_name(target: Path, owner: int) -> Path:
    """Where the process `owner` writes what is to become `target`."""
    return target.with_name(f".{target.name}{TEMPORARY}{owner}")


@contextmanager
def work_folder(target: Path) -> Iterator[Path]:
    """A folder to make `target` in, beside it and gone after the block unless it was renamed.

    Several processes may share the folder it is in: its name has its owner, so that `sweep_orphans`
    of another run finds it when this process was killed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    work = target.with_name(f".{target.name}{TEMPORARY}{owner()}-{secrets.token_hex(4)}")
    work.mkdir()
    try:
        yield work
    finally:
        remove(work)


@contextmanager
def parents_of(target: Path) -> Iterator[None]:
    """Makes the folders above `target`; those that it made and nothing came into are gone after."""
    missing = [folder for folder in target.parents if not os.path.exists(folder)]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for folder in missing:
            with suppress(OSError):  # something is in it
                folder.rmdir()


def sweep_orphans(folder: Path) -> None:
    """Remove the work folders of processes of this host that are no more."""
    for left in folder.glob(f".*{TEMPORARY}*"):
        owned = OWNED.search(left.name)
        if owned and is_running(owned["owner"]) is False:
            remove(left)


def owner() -> str:
    """This process, told from every other one, those on other hosts and earlier ones too."""
    pid = os.getpid()
    return f"{_host()}-{pid}-{_started(pid)}"


def is_running(owner: str) -> bool | None:
    """Whether the process that called itself so is running; None on another host."""
    found = OWNER.fullmatch(owner)
    if found is None or found["host"] != _host():
        return None
    return _runs(int(found["pid"]), found["start"])


def _host() -> str:
    """This machine, or the container: process numbers mean nothing in another."""
    try:
        return f"{socket.gethostname()}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str:
    """When a process began, as Linux counts, because numbers of processes are given again; "0"
    where there is no such process, it is dead and waits for its parent, or there is no telling."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "0"
    fields = status.rpartition(")")[2].split()
    return "0" if fields[0] in "ZX" else fields[19]


def _runs(pid: int, start: str) -> bool:
    if start != "0":
        return _started(pid) == start
    if os.name == "nt":  # where signal 0 is not a question
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def put_in_place(written: Path, target: Path) -> None:
    """Rename; an older `target` that a rename cannot replace is out of the way until then."""
    old = target.with_name(f".{target.name}{TEMPORARY}old")
    if target.exists() and (target.is_dir() or written.is_dir()):
        remove(old)
        os.replace(target, old)
    os.replace(written, target)
    sync_folder(target.parent)
    remove(old)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what a killed process left half written."""
    for left in folder.glob(f".*{TEMPORARY}*"):
        remove(left)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` last through a power cut, where the platform can."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
