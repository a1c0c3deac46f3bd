"""Size and checksum of every file of a prepared folder: noted when it is made, checked when found.

`checksums.json` has them by relative path. What is added to the folder later (`xz.json`) is not in
it. CRC-32 finds accidents, at 4 GB/s; files beyond `SUMMED_UP_TO` are compared by size alone, so
that a check ends within a second or two.
"""

import json
import zlib
from pathlib import Path

CHECKSUMS = "checksums.json"
SUMMED_UP_TO = 2_000_000_000  # bytes of a file: a billion tokens
AT_ONCE = 2**22


def note_checksums(folder: Path) -> None:
    """Write down what is in a folder now that it is whole."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    found = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "crc32": crc32(path)}
        for path in files
    }
    (folder / CHECKSUMS).write_text(json.dumps(found, indent=1), encoding="utf-8")


def damage(folder: Path, up_to: float | None = None) -> str:
    """What is wrong with a folder that has checksums, in a few words; nothing if it is whole. Of
    files of more than `up_to` bytes (`SUMMED_UP_TO`) only the size is compared."""
    up_to = SUMMED_UP_TO if up_to is None else up_to
    try:
        noted = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
        files = {name: (entry["bytes"], entry["crc32"]) for name, entry in noted.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return f"{CHECKSUMS} does not read"
    for name, (size, checksum) in files.items():
        path = folder / name
        try:
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size:,} bytes, not {size:,}"
            if size <= up_to and crc32(path) != checksum:
                return f"{name} has other bytes than were written"
        except FileNotFoundError:
            return f"{name} is gone"
        except OSError as error:
            return f"{name} does not read ({error.strerror})"
    return ""


def crc32(path: Path) -> int:
    """Of a file, read in pieces."""
    checksum = 0
    with open(path, "rb") as file:
        while piece := file.read(AT_ONCE):
            checksum = zlib.crc32(piece, checksum)
    return checksum
