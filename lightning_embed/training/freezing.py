"""Parts of a network that training leaves as they are: `--model.freeze`.

A frozen parameter has no gradient, so no optimizer moves it and no weight decay shrinks it.
"""

from collections.abc import Iterable
from typing import Any

from torch import nn

from lightning_embed.errors import UserError
from lightning_embed.model.decoder import DecoderLM


def freeze(network: DecoderLM, parts: str | Iterable[str] | None) -> None:
    """Freeze parts by name: `embedding`, which a tied head shares, `head`, `blocks`, `blocks.0` and
    so on, `norms`.

    Raises:
        UserError: there is no part of that name, or nothing is left to train.
    """
    names = [parts] if isinstance(parts, str) else list(parts or ())
    there = parts_of(network)
    for name in names:
        if name not in there:
            last = len(network.blocks) - 1
            shown = [part for part in there if not part.startswith("blocks.")]
            tied = " (the head is the embedding)" if name == "head" else ""
            raise UserError(
                f"--model.freeze {name!r} is no part of this network{tied}; there are"
                f" {', '.join(shown)}, and blocks.0 to blocks.{last}"
            )
        for module in there[name]:
            module.requires_grad_(False)
    if names and not any(p.requires_grad for p in network.parameters()):
        raise UserError(f"--model.freeze {' '.join(names)} leaves nothing to train")


def parts_of(network: DecoderLM) -> dict[str, list[nn.Module]]:
    """The modules of each part by its name."""
    norms = [module for module in network.modules() if isinstance(module, nn.RMSNorm)]
    found: dict[str, list[Any]] = {"embedding": [network.embedding], "blocks": [network.blocks]}
    if network.head is not None:
        found["head"] = [network.head]
    blocks = {f"blocks.{number}": [block] for number, block in enumerate(network.blocks)}
    return found | {"norms": norms} | blocks
