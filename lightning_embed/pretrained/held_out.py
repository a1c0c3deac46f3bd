"""How good a network is on the text that its run held out, by its own logits and by those of an
exported folder.

The text is looked for where the run kept its tokens. The two differ in padding's logit: minus
infinity here, 0 in a Hugging Face folder, where padding takes a little of each probability.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import yaml

from lightning_embed.checkpointing.run_folders import run_of
from lightning_embed.data.batch import PaddedRows
from lightning_embed.data.plan import BatchSettings, eighths, plan_epoch
from lightning_embed.data.windows import cut_windows
from lightning_embed.pretrained.weights import Pretrained
from lightning_embed.special_tokens import IGNORE_INDEX
from lightning_embed.tokens.prepared import Prepared, damage, default_cache_dir, open_prepared
from lightning_embed.tokens.token_files import is_prepared

WORK = 4e12  # floating-point operations, a minute of a slow CPU; of more text a draw is taken
ROWS = 512  # of logits at once


class HeldOut(NamedTuple):
    """What was measured, over `tokens` of the `whole` held-out targets."""

    text: str  # its title
    documents: int
    tokens: int
    whole: int
    loss: float  # nats a token
    bits_per_byte: float
    accuracy: float
    shift: float  # nats a token that the loss of an exported folder is higher
    keeps_text: bool = True  # else bits per byte leave out what the tokenizer loses


def find_held_out(about: dict[str, Any]) -> tuple[Prepared, int] | None:
    """The tokens of a network's run, and by how much its evaluations overlap; None where they are
    not at hand.

    Args:
        about: of the network, see `read_trained`.
    """
    key = about.get("data", {}).get("data")
    if not key:
        return None
    data = run_settings(about).get("data") or {}
    folder = Path(data.get("cache_dir") or default_cache_dir()).expanduser() / key
    if not is_prepared(folder) or damage(folder):
        return None
    return open_prepared(folder), int(data.get("eval_overlap") or 0)


def run_settings(about: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a network's run, which lies beside its checkpoints; empty where it does
    not."""
    folder = run_of(Path(about.get("path", "")))
    if folder is None or not (folder / "config.yaml").is_file():
        return {}
    settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    return settings if isinstance(settings, dict) else {}


@torch.no_grad()
def measure(pretrained: Pretrained) -> HeldOut | None:
    """Score the held-out text of the network's own run, or an even draw of it where all would take
    long; None where it is not at hand or empty."""
    found = find_held_out(pretrained.about)
    if found is None or not found[0].validation.n_targets:
        return None
    (prepared, overlap), network = found, pretrained.network
    split, longest = prepared.validation, pretrained.max_length
    windows = cut_windows(split.offsets, longest, min(overlap, longest - 1))
    each = 2 * sum(p.numel() for p in network.parameters())
    windows = windows.draw(max(4096, WORK / each))
    vocabulary = pretrained.tokenizer.vocab_size
    device = network.embedding.weight.device
    rows = PaddedRows(split.tokens, windows, split.source, split.n_bytes, split.offsets, vocabulary)
    batches = BatchSettings(8 * longest, tuple(eighths(longest)))
    plan = plan_epoch(windows, batches, seed=0, epoch=0, shuffle=False)
    nll = shift = 0.0
    correct = n_bytes = 0
    for number in range(len(plan)):
        batch = rows[plan.micro_batch(number, 0, 1)]
        real = batch.targets != IGNORE_INDEX
        n_bytes += int(batch.n_bytes.sum())
        hidden = network.hidden(batch.ids.to(device))[real.to(device)]
        targets = batch.targets[real].to(device)
        for part, wanted in zip(hidden.split(ROWS), targets.split(ROWS), strict=True):
            logits = network.logits(part)
            total = logits.logsumexp(dim=1)
            picked = logits.gather(1, wanted.unsqueeze(1)).squeeze(1)
            nll += float((total - picked).double().sum())
            shift += float(F.softplus(-total.double()).sum())  # log(exp(total) + exp(0)) - total
            correct += int((logits.argmax(dim=1) == wanted).sum())
    tokens = int(windows.targets.sum())
    return HeldOut(
        text=prepared.report.title,
        documents=split.documents,
        tokens=tokens,
        whole=split.n_targets,
        loss=nll / tokens,
        bits_per_byte=nll / math.log(2) / max(1, n_bytes),
        accuracy=correct / tokens,
        shift=shift / tokens,
        keeps_text=prepared.report.keeps_text,
    )
