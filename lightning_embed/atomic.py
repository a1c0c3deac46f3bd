"""Files and folders that are whole or not there: written under another name, then renamed.

The other name is in the same folder, because a rename is one step only within a file system.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".tmp-"


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
