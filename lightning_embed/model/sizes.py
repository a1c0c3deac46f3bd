"""How large a network is: from hyperparameters, from the data, and no larger than the machine.

Knows: which hyperparameters are the network's, which follow from the data, what cannot be. Leaves
to others: building it (`model.py`), when (`lightning_module.py`).
"""

from collections.abc import Mapping, MutableMapping
from typing import Any

import torch

from lightning_embed.errors import UserError
from lightning_embed.hardware import require_memory
from lightning_embed.model.decoder import DecoderLM


def network_settings(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """`DecoderLM`'s arguments."""
    names = (
        "vocab_size d_model n_layers n_heads n_kv_heads d_ff tied qk_norm dropout"
        " scale_embedding init rope_theta"
    )
    return {name: hparams[name] for name in names.split()}


def take_sizes(hparams: MutableMapping[str, Any], data: Any) -> None:
    """Write sizes that follow from the data module `data` into hyperparameters, and so checkpoints.

    Raises:
        UserError: without data the vocabulary is unknown, or another one was asked for.
    """
    if data is not None:
        found = data.prepared.tokenizer.vocab_size
        if hparams["vocab_size"] not in (None, found):
            raise UserError(
                f"--model.vocab_size is {hparams['vocab_size']}, but the tokenizer has"
                f" {found} ids: leave it out"
            )
        hparams["vocab_size"] = found
        if hparams["max_length"] is None:
            hparams["max_length"] = data.max_length
    elif hparams["vocab_size"] is None:
        raise UserError("the vocabulary is unknown without data; give vocab_size")


def require_possible(hparams: Mapping[str, Any]) -> None:
    """Raises UserError, one line, for a network that is empty or larger than memory."""
    settings = network_settings(hparams)
    for name in ("d_model", "n_layers", "n_heads"):
        if settings[name] < 1:
            raise UserError(f"--model.{name} must be at least 1, not {settings[name]}")
    with torch.device("meta"):  # costs nothing, and knows how many parameters there would be
        parameters = sum(
            p.numel() for p in DecoderLM(**settings | {"n_layers": 1}).blocks[0].parameters()
        )
    require_memory(
        parameters * settings["n_layers"]
        + settings["vocab_size"] * settings["d_model"] * (1 if settings["tied"] else 2)
    )
