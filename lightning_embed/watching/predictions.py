"""The table that `predict` writes: how well the text of each held-out source was predicted."""

import csv
import math
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lightning_embed.console import say
from lightning_embed.data.prepared import Prepared
from lightning_embed.errors import UserError


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
    columns = {key: torch.cat([row[key] for row in rows]).cpu() for key in rows[0]}
    table = []
    for number in columns["source"].unique().tolist():
        mine = columns["source"] == number
        nll = float(columns["nll"][mine].double().sum())
        n_bytes = int(columns["n_bytes"][mine].sum())
        bits = nll / math.log(2) / n_bytes if n_bytes else math.nan
        table.append((sources[number], int(columns["targets"][mine].sum()), n_bytes, bits))
    table.sort(key=lambda row: -row[-1])
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("source", "targets", "bytes", "bits_per_byte"))
        writer.writerows((s, t, b, f"{r:.4f}") for s, t, b, r in table)
    hardest = f"hardest {table[0][0]} at {table[0][-1]:.3f} bits/byte"
    say("written", f"{path}: {len(table)} sources, {hardest}")
    seen = sum(row[2] for row in table)
    if seen < whole:
        say("", f"of {seen:,} of {whole:,} bytes (--trainer.limit_predict_batches)")
