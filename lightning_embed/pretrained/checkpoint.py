"""Reads a checkpoint that `fit` wrote, after the checks of every command, without Lightning.

A run's folder, `best` and `last` are understood here as everywhere (`find_checkpoint`).
"""

from pathlib import Path
from typing import Any

import torch

from lightning_embed.checkpointing.compatibility import DATA, Candidate, check
from lightning_embed.checkpointing.files import read_checkpoint
from lightning_embed.checkpointing.run_folders import ROOT, find_checkpoint
from lightning_embed.model.decoder import DecoderLM
from lightning_embed.pretrained.weights import Pretrained
from lightning_embed.tokens.tokenizer import TextTokenizer

PREFIX = "model."  # of the network's names in `LanguageModel`


def read_trained(wanted: str, root: Path = ROOT) -> Pretrained:
    """The network of a run's folder (its best), a .ckpt, a folder of shards, or `best` or `last` of
    the latest run in `root`.

    Raises:
        UserError: there is none, it is damaged, holds code, is of another program, version or
            shape, or carries no tokenizer.
    """
    path = find_checkpoint(wanted, "generate", root)
    candidate = Candidate(path, "generate")
    check(candidate, "file", "content")
    hyper = candidate.checkpoint["hyper_parameters"]
    settings = DecoderLM.settings(**{k: hyper[k] for k in DecoderLM.settings() if k in hyper})
    network = DecoderLM.outline(hyper["vocab_size"], settings)
    if not candidate.checkpoint["state_dict"]:  # shards, of which only the header was read
        candidate.checkpoint = read_checkpoint(path)
    candidate.state_dict = {PREFIX + name: x for name, x in network.state_dict().items()}
    check(candidate, "tensors")
    theirs = candidate.checkpoint["state_dict"]
    # Copies: a mapped file could change, and other formats become float32.
    copies = {
        name: theirs[PREFIX + name].to(torch.float32, copy=True) for name in network.state_dict()
    }
    network.load_state_dict(copies, assign=True)
    tokenizer = TextTokenizer.from_json(candidate.checkpoint["tokenizer"])
    return Pretrained(network.eval(), settings, tokenizer, hyper["max_length"], _about(candidate))


def _about(candidate: Candidate) -> dict[str, Any]:
    """What the checkpoint says of the run: its steps and epoch, all hyperparameters, its text and
    batches (`data`), the trainer's settings, and the best validation so far."""
    found = candidate.checkpoint
    callbacks = found.get("callbacks", {})
    return {
        "path": str(candidate.path),
        "steps": found.get("global_step", 0),
        "epoch": found.get("epoch", 0),
        "hyper_parameters": dict(found["hyper_parameters"]),
        "data": found.get(DATA, {}),
        "trainer": callbacks.get("Resuming", {}).get("settings", {}),
        "best": callbacks.get("Checkpoints", {}),
    }
