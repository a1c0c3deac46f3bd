"""One side of `preparing.py`: says how long it took, and how much memory, as JSON."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_embed.sources.files import FilesCorpus
from lightning_embed.sources.source import utf8_size
from lightning_embed.tokens.prepared import prepare
from lightning_embed.tokens.tokenizer import TextTokenizer

PIECE, AT_ONCE = 50_000, 80  # characters of a text, and texts, that the bare tokenizer gets


def peak() -> float:
    """Megabytes that this process has had in memory at most; `getrusage` tells of its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1e3


def pieces(folder: Path) -> Iterator[list[str]]:
    for path in sorted(folder.iterdir()):
        with open(path, encoding="utf-8") as file:
            while texts := [text for _ in range(AT_ONCE) if (text := file.read(PIECE))]:
                yield texts


def bare(folder: Path, tokenizer: str) -> dict[str, float]:
    encode = TextTokenizer.load(tokenizer)._tokenizer.encode_batch_fast
    wall = cpu = 0.0
    for texts in pieces(folder):
        began, began_cpu = time.perf_counter(), time.process_time()
        encode(texts, add_special_tokens=False)
        wall += time.perf_counter() - began
        cpu += time.process_time() - began_cpu
    return {"s": wall, "cpu s": cpu, "MB": peak()}


def pipeline(folder: Path, tokenizer: str, cache: Path, log: Path) -> dict[str, float]:
    encode = TextTokenizer.encode_documents

    def noting(self: TextTokenizer, texts: list[str], begins: Any = None) -> list[Any]:
        if begins is not None:  # else it is the sample that the time is estimated from
            with open(log, "a") as file:
                file.write(f"{sum(map(utf8_size, texts))}\n")
        return encode(self, texts, begins)

    TextTokenizer.encode_documents = noting  # type: ignore[method-assign]
    began, began_cpu = time.perf_counter(), time.process_time()
    prepare(FilesCorpus((str(folder),)), cache, tokenizer=tokenizer, vocab_size=None)
    return {
        "s": time.perf_counter() - began,
        "cpu s": time.process_time() - began_cpu,
        "MB": peak(),
    }


def main() -> None:
    kind, text, tokenizer, *more = sys.argv[1:]
    found = (
        bare(Path(text), tokenizer)
        if kind == "bare"
        else pipeline(Path(text), tokenizer, Path(more[0]), Path(more[1]))
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
