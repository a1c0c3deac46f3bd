"""Which prepared folders and unfinished work a cache folder holds, and how to remove them.

A prepared folder was last used when the time of the folder itself says: opening it sets that, where
this user may. Nothing else in a cache folder is looked at or touched.
"""

import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightning_embed.atomic import OWNED, is_running, remove, work_folder
from lightning_embed.errors import UserError, writing
from lightning_embed.tokens.lock import locked_if_free
from lightning_embed.tokens.prepared import damage
from lightning_embed.tokens.token_files import Report
from lightning_embed.tokens.work import KEY, lock_beside

LEFT = re.compile(rf"\.(?P<key>{KEY.pattern})\.(work|tmp-.+)")


@dataclass(frozen=True)
class Kept:
    """A prepared folder, or the work folder of one that is not finished."""

    path: Path
    key: str
    state: Literal["whole", "damaged", "unfinished", "in the making"]
    problem: str  # what is wrong with it, in a few words
    bytes: int  # on the disk
    made: float  # seconds since 1970
    used: float
    report: Report | None


def kept_in(cache_dir: Path, thorough: bool = False) -> list[Kept]:
    """All of them, the latest used first.

    Args:
        cache_dir: folder of all prepared folders.
        thorough: read every byte; else the files' sizes alone are compared.

    Raises:
        UserError: there is no such folder, or it cannot be read.
    """
    try:
        entries = sorted(cache_dir.iterdir())
    except FileNotFoundError:
        raise UserError(_not_read(cache_dir, "there is no such folder")) from None
    except NotADirectoryError:
        raise UserError(_not_read(cache_dir, "it is a file")) from None
    except OSError as error:
        raise UserError(_not_read(cache_dir, error.strerror)) from None
    found = [_prepared(path, thorough) for path in entries if KEY.fullmatch(path.name)]
    found += [_unfinished(path) for path in entries if LEFT.fullmatch(path.name)]
    return sorted(found, key=lambda kept: kept.used, reverse=True)


def _not_read(cache_dir: Path, why: str | None) -> str:
    return f"no prepared tokens can be read in {cache_dir}: {why}; correct --data.cache_dir"


def _prepared(path: Path, thorough: bool) -> Kept:
    fault = damage(path, math.inf if thorough else 0)
    report, made = None, path.lstat().st_mtime
    with suppress(OSError, ValueError, TypeError, AttributeError, LookupError):
        report = Report.load(path)
        made = (path / "report.json").stat().st_mtime
    state: Literal["whole", "damaged"] = "damaged" if fault or report is None else "whole"
    problem = fault or ("" if report else "report.json does not read")
    return Kept(path, path.name, state, problem, _size(path), made, path.lstat().st_mtime, report)


def _unfinished(path: Path) -> Kept:
    found = LEFT.fullmatch(path.name)
    assert found is not None
    owned = OWNED.search(path.name)
    if owned:
        busy = is_running(owned["owner"]) is not False
    else:
        with locked_if_free(lock_beside(path.with_name(found["key"]))) as free:
            busy = not free
    newest = max((file.lstat().st_mtime for file in _files(path)), default=path.lstat().st_mtime)
    state: Literal["in the making", "unfinished"] = "in the making" if busy else "unfinished"
    return Kept(path, found["key"], state, "", _size(path), newest, newest, None)


def _files(path: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(path):
        yield from (Path(folder, name) for name in names)


def _size(path: Path) -> int:
    size = 0
    for file in _files(path):
        with suppress(OSError):  # gone since
            size += file.lstat().st_size
    return size


def users(path: Path) -> list[int]:
    """Numbers of the processes of this host that have files of a folder mapped into memory, as far
    as this user may know; of other systems than Linux none are known."""
    inside, found = f"{os.path.realpath(path)}/", []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if inside in (process / "maps").read_text(encoding="utf-8", errors="replace"):
                found.append(int(process.name))
    return sorted(found)


def drop(kept: Kept) -> None:
    """Remove one; it is out of the way at once, whatever happens meanwhile.

    Raises:
        UserError: this user may not.
    """
    with writing(kept.path.parent, "--data.cache_dir"):
        if kept.state == "unfinished":
            remove(kept.path)
            return
        with work_folder(kept.path) as aside, suppress(FileNotFoundError):
            os.replace(kept.path, aside / kept.key)
