"""Preparing text of any size: speed beside the bare tokenizer, peak memory, a kill in the middle.

    python benchmarks/preparing.py [--megabytes 100 1000] [--files 1 1000] [--threads 1]

The text is that of `tokenising.py`, as one file of text or as many; the tokenizer is given. Each
measurement is a process of its own (`side_preparing.py`), whose peak memory is told:

- bare      `encode_batch_fast` over pieces of the text, ids thrown away
- pipeline  `prepare` from files to tokens on disk
- killed    the same, killed (SIGKILL) half way, and gone on with by another process: how much text
            both encoded beyond the whole of it, and whether the folder is the same
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from peers import library_text, parse, parser, publish, scratch
from results import Measured, Row
from tokenising import documents

from lightning_embed.sources.files import FilesCorpus
from lightning_embed.tokens import work
from lightning_embed.tokens.prepared import data_key

MOST_MEMORY = 1_500  # MB
MOST_REDONE = 32_000_000  # bytes
SIDE = Path(__file__).with_name("side_preparing.py")


def write_files(texts: Iterable[str], folder: Path, size: int, files: int) -> None:
    """The texts one after the other, a blank line between two, in files of like size."""
    folder.mkdir()
    left, each = iter(texts), size // files
    for number in range(files):
        made = 0
        with open(folder / f"{number:04}.txt", "w", encoding="utf-8") as file:
            for text in left:
                made += file.write(text + "\n\n")
                if made >= each:
                    break


def start(threads: int, kind: str, *words: str | Path) -> "subprocess.Popen[str]":
    given = {"RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true"}
    command = [sys.executable, str(SIDE), kind, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **given})


def result(started: "subprocess.Popen[str]") -> dict[str, float]:
    out, _ = started.communicate()
    assert started.returncode == 0, out
    found: dict[str, float] = json.loads(out.splitlines()[-1])
    return found


def digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with open(path, "rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def killed(threads: int, text: Path, tokenizer: str, place: Path, key: str) -> dict[str, float]:
    """Bytes that were encoded twice, and the seconds that going on took."""
    cache, log = place / "killed", place / "log"
    log.write_text("")
    whole = sum(path.stat().st_size for path in text.iterdir())
    first = start(threads, "pipeline", text, tokenizer, cache, log)
    left = work.work_beside(cache / key)
    while ((begun := left.begun()) is None or begun.size < whole / 2) and first.poll() is None:
        time.sleep(0.05)
    time.sleep(1.0)  # within a shard
    first.send_signal(signal.SIGKILL)
    first.communicate()
    begun = left.begun()
    assert begun is not None, "it was done before it could be killed"
    then = result(start(threads, "pipeline", text, tokenizer, cache, log))
    assert digest(cache / key) == digest(place / "cache" / key)
    encoded = sum(map(int, log.read_text().split()))
    return {**then, "twice": encoded - whole, "done before": begun.size}


def measure(options: argparse.Namespace, size: int, files: int, place: Path) -> list[Row]:
    text, tokenizer, threads = place / "text", str(place / "tokenizer.json"), options.threads
    write_files(documents(size), text, size, files)
    whole = sum(path.stat().st_size for path in text.iterdir())
    plain = result(start(threads, "bare", text, tokenizer))
    ours = result(start(threads, "pipeline", text, tokenizer, place / "cache", place / "log"))
    what = f"{size / 1e6:,.0f} MB in {files:,} files"
    print(f"{what}: bare {plain}, pipeline {ours}", flush=True)
    rows = [
        Row(
            f"{what}: the pipeline's speed to the bare tokenizer's",
            Measured("prepare()", {"MB/s": whole / ours["s"] / 1e6, "s": ours["s"]}),
            Measured("encode_batch_fast", {"MB/s": whole / plain["s"] / 1e6, "s": plain["s"]}),
            plain["cpu s"] / ours["cpu s"] if threads == 1 else plain["s"] / ours["s"],
            at_least=0.85,
        ),
        Row(
            f"{what}: peak memory to 1.5 GB",
            Measured("prepare()", {"MB": ours["MB"]}),
            Measured("the limit", {"MB": MOST_MEMORY}),
            ours["MB"] / MOST_MEMORY,
            at_most=1.0,
        ),
    ]
    if whole > 4 * work.SHARD:
        source = FilesCorpus((str(text),))
        key = data_key(source, tokenizer=tokenizer, vocab_size=None)
        found = killed(threads, text, tokenizer, place, key)
        print(f"{what}: killed {found}", flush=True)
        redone = Measured("encoded twice", {"MB": found["twice"] / 1e6})
        name = f"{what}: killed half way and gone on with, text encoded twice to 32 MB"
        limit = Measured("the limit", {"MB": MOST_REDONE / 1e6})
        rows.append(Row(name, redone, limit, found["twice"] / MOST_REDONE, at_most=1.0))
    return rows


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--megabytes", type=int, nargs="+", default=[100, 1000])
    made.add_argument("--files", type=int, nargs="+", default=[1, 1000])
    options = parse(made)
    rows = list[Row]()
    for files in options.files:
        for size in options.megabytes:
            with scratch() as place:
                library_text(place)
                rows += measure(options, size * 1_000_000, files, place)
    how = f"Vocabulary 4,096; {options.threads} threads; once each."
    publish("tokenising", how, rows, options)


if __name__ == "__main__":
    main()
