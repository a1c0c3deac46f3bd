"""What `predict` writes: how well the text of each held-out source was predicted, as a table; of
texts of one's own each token's log-probability too.
"""

import csv
import json
import math
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_embed.atomic import replacing
from lightning_embed.console import say
from lightning_embed.data.windows import Windows
from lightning_embed.errors import UserError
from lightning_embed.tokens.prepared import Prepared


def predictions_name(prepared: Prepared, own: bool) -> str:
    """`predictions.csv` for what a run itself held out; any other text has a file of its own."""
    if own:
        return "predictions.csv"
    text = re.sub(r"[^\w.]+", "-", prepared.report.title).strip("-")[:80]
    return f"predictions-{text}-{prepared.key[:8]}.csv"


def write_predictions(
    rows: Sequence[dict[str, Tensor]], sources: list[str], path: Path, whole: int
) -> None:
    """Write one line a source: targets, bytes, bits per byte; the hardest first. Say so where they
    are fewer than the text's `whole` bytes."""
    if not rows:
        raise UserError("nothing to predict: --trainer.limit_predict_batches is 0")
    keys = ("source", "nll", "targets", "n_bytes")
    columns = {key: torch.cat([row[key] for row in rows]).cpu() for key in keys}
    table = []
    for number in columns["source"].unique().tolist():
        mine = columns["source"] == number
        nll = float(columns["nll"][mine].double().sum())
        n_bytes = int(columns["n_bytes"][mine].sum())
        bits = nll / math.log(2) / n_bytes if n_bytes else math.nan
        table.append((sources[number], int(columns["targets"][mine].sum()), n_bytes, bits))
    table.sort(key=lambda row: -row[-1])
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside, open(beside, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("source", "targets", "bytes", "bits_per_byte"))
        writer.writerows((s, t, b, f"{r:.4f}") for s, t, b, r in table)
    hardest = f"hardest {table[0][0]} at {table[0][-1]:.3f} bits/byte"
    say("written", f"{path}: {len(table)} source{'s' if len(table) > 1 else ''}, {hardest}")
    seen = sum(row[2] for row in table)
    if seen < whole:
        say("", f"of {seen:,} of {whole:,} bytes (--trainer.limit_predict_batches)")


def write_tokens(
    rows: Sequence[dict[str, Tensor]], prepared: Prepared, windows: Windows, table: Path
) -> None:
    """Write, beside the table, a JSON line a document: every token after `<s>`, the last of which
    is `</s>`, with the natural logarithm of the probability it was given; null where it was not
    evaluated. `texts` are tokens decoded one by one, each as behind another; part of a letter is
    shown as U+FFFD.

    Args:
        rows: with `window` and `token_nll` `(rows, width)`.
        prepared: the text.
        windows: of the evaluation.
        table: the path of the table.
    """
    split, names = prepared.validation, prepared.report.sources
    nll = np.full(len(split.tokens), np.nan, np.float32)  # of the token at each place
    for row in rows:
        places = windows[row["window"].numpy()]
        lies = zip(places.start, places.length, places.context, strict=True)
        for (start, length, context), scores in zip(lies, row["token_nll"].numpy(), strict=True):
            nll[start + 1 + context : start + 1 + length] = scores[context:length]
    path = table.with_name(f"{table.stem}.tokens.jsonl")
    texts: dict[int, str] = {}
    with replacing(path) as beside, open(beside, "w", encoding="utf-8") as file:
        for number, (begin, end) in enumerate(pairwise(split.offsets.tolist())):
            ids = split.tokens[begin + 1 : end].tolist()
            for i in set(ids) - texts.keys():
                texts[i] = prepared.tokenizer.text_of(i)
            line = {
                "source": names[split.source[number]],
                "document": number,
                "bytes": int(split.n_bytes[number]),
                "ids": ids,
                "texts": [texts[i] for i in ids],
                "log_probs": [
                    None if math.isnan(x) else round(-x, 6) for x in nll[begin + 1 : end].tolist()
                ],
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    say("written", f"{path}: the log-probability of each token")
