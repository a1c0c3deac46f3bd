"""The end of a run: what was learned, how good it is, and what to do next.

Knows: which figures to show, and what xz needs for the same text. Leaves to others: computing
metrics (`metrics.py`), sampling (`generate.py`).
"""

import json
import lzma
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lightning_embed.console import say
from lightning_embed.metrics import LanguageModelMetrics, bits_per_byte_interval


def xz_bits_per_byte(
    train: bytes, held_out: bytes, cache: Path | None = None
) -> tuple[float, float]:
    """Bits a byte that `xz -9e` needs for `held_out` alone, and with `train` as its dictionary.

    The second is size(train + held out) - size(train). Compression takes seconds for a few
    megabytes, so the result is kept in `cache`.
    """
    if cache is not None and cache.is_file():
        alone, after = json.loads(cache.read_text(encoding="utf-8"))
        return alone, after

    def size(text: bytes) -> int:
        return len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))

    with ThreadPoolExecutor() as pool:  # lzma lets other threads run
        alone, both, first = pool.map(size, (held_out, train + held_out, train))
    result = 8 * alone / len(held_out), 8 * (both - first) / len(held_out)
    if cache is not None:
        cache.write_text(json.dumps(result), encoding="utf-8")
    return result


def say_evaluation(metrics: LanguageModelMetrics, xz: tuple[float, float] | None) -> None:
    """Loss, perplexity, accuracy and bits per byte over everything the metrics have seen."""
    values = {name: float(value) for name, value in metrics.compute().items()}
    say(
        "held out",
        f"validation loss {values['loss']:.4f}   perplexity {values['perplexity']:.1f}"
        f"   accuracy {values['accuracy']:.3f}",
    )
    ratio = values["bits_per_byte"]
    say("", f"bits per byte {ratio:.4f}")
    if int((metrics.n_bytes > 0).sum()) > 1:
        low, high = bits_per_byte_interval(metrics.nll, metrics.n_bytes)
        say("", f"95 % over held-out files {low:.3f}-{high:.3f}")
    if xz is not None:
        alone, after = xz
        say(
            "",
            f"xz -9e needs {alone:.3f} alone, {after:.4f} after the training text:"
            f" ratio {ratio / after:.3f}",
        )


def say_sample(text: str, lines: int = 6) -> None:
    """The first lines of a sample, one block."""
    for number, line in enumerate([x for x in text.splitlines() if x.strip()][:lines]):
        say("sample" if number == 0 else "", line[:90])
