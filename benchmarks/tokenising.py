"""Preparing a corpus, text files to tokens on disk, beside the bare tokenizer.

    python benchmarks/tokenising.py [--megabytes 48]

The text is the standard library's functions and classes, over and over, each copy with its own
numbers for names: no document is a copy of another, and no cache of words sees the same text twice.
The tokenizer is trained beforehand on the library and given to both. Warm: the files are in the
system's cache, libraries are loaded. Both in one process, taking turns:

- bare      `encode_batch_fast` over lists of texts that lie in memory, ids thrown away
- pipeline  `prepare`: fingerprint, reading, copies, split, encoding, `tokens.bin` and the
            rest, into an empty cache
"""

import os
import random
import re
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from peers import library_text, parse, parser, publish, scratch
from results import Measured, Row

from lightning_embed.sources import stdlib
from lightning_embed.sources.corpus import FilesCorpus
from lightning_embed.tokens.prepared import open_prepared, prepare
from lightning_embed.tokens.tokenizer import TextTokenizer

FILES = 40  # enough to be split by name
AT_ONCE = 2000  # documents, of the bare tokenizer: with fewer its threads wait for each other
NAME = re.compile(r"\b[a-z]{4,}\b")


def perturbed(text: str, draw: random.Random) -> str:
    """A third of the longer words get a number."""
    return NAME.sub(
        lambda word: f"{word[0]}{draw.randrange(1000)}" if draw.random() < 1 / 3 else word[0], text
    )


def documents(size: int) -> Iterator[str]:
    """About `size` bytes of documents, the same every time."""
    sources = stdlib.read_sources(stdlib.library_root(), 0)
    texts = [piece.text for piece in stdlib.cut(sources, Counter()) if not piece.held_out]
    draw, made = random.Random(0), 0
    while True:
        for text in texts:
            new = perturbed(text, draw)
            made += len(new.encode())
            yield new
            if made >= size:
                return


def write_files(texts: list[str], folder: Path) -> None:
    import json

    folder.mkdir()
    for number in range(FILES):
        lines = (json.dumps({"text": text}) + "\n" for text in texts[number::FILES])
        (folder / f"{number:02}.jsonl").write_text("".join(lines), encoding="utf-8")


def timed(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--megabytes", type=float, default=48)
    made.add_argument("--profile", action="store_true", help="show where a pipeline's time goes")
    options = parse(made)
    # Before the library's first parallel call, which fixes them for good.
    os.environ["RAYON_NUM_THREADS"] = os.environ["RAYON_RS_NUM_THREADS"] = str(options.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    with scratch() as folder:
        library_text(folder)
        name = str(folder / "tokenizer.json")
        texts = list(documents(int(options.megabytes * 1e6)))
        write_files(texts, folder / "text")
        size = sum(len(text.encode()) for text in texts)
        tokenizer = TextTokenizer.load(name)._tokenizer

        def bare() -> None:
            for start in range(0, len(texts), AT_ONCE):
                some = texts[start : start + AT_ONCE]
                tokenizer.encode_batch_fast(some, add_special_tokens=False)

        def pipeline() -> Path:
            shutil.rmtree(folder / "prepared", ignore_errors=True)
            source = FilesCorpus((str(folder / "text" / "*.jsonl"),))  # a new one: it hashes once
            return prepare(source, folder / "prepared", tokenizer=name, vocab_size=None)

        bare()
        prepared = open_prepared(pipeline())
        tokens = len(prepared.train.tokens) + len(prepared.validation.tokens)
        if options.profile:
            import cProfile

            cProfile.runctx("pipeline()", globals(), {"pipeline": pipeline}, sort="tottime")
            return
        plain, whole = [], []
        for number in range(options.repeats):
            plain.append(timed(bare))
            whole.append(timed(pipeline))
            print(f"round {number + 1}: bare {plain[-1]:.2f} s, pipeline {whole[-1]:.2f} s")
    ratio = statistics.median(a / b for a, b in zip(plain, whole, strict=True))

    def measured(settings: str, taken: list[float]) -> Measured:
        middle = statistics.median(taken)
        return Measured(settings, {"MB/s": size / middle / 1e6, "s": middle})

    row = Row(
        "the pipeline's speed to the bare tokenizer's",
        measured("prepare(), text files to tokens on disk", whole),
        measured("encode_batch_fast over texts in memory", plain),
        ratio,
        at_least=0.85,
    )
    how = (
        f"{size / 1e6:.1f} MB in {len(texts):,} documents, {tokens:,} tokens, vocabulary 4,096;"
        f" {options.repeats} rounds, medians."
    )
    publish("tokenising", how, [row], options)


if __name__ == "__main__":
    main()
