"""`Pretrained`: what every reader of trained networks returns and every writer takes."""

from dataclasses import dataclass, field
from typing import Any

from lightning_embed.model.decoder import DecoderLM
from lightning_embed.tokens.tokenizer import TextTokenizer


@dataclass(frozen=True)
class Pretrained:
    """A trained network with what is needed to use it.

    Attributes:
        network: float32, in evaluation mode.
        settings: every setting of its architecture, as `DecoderLM.settings` gives them.
        tokenizer: whose ids it was trained with.
        max_length: positions of a training window; it has not seen later ones.
        about: where it was read (`path`), and what its training says of itself, such as steps, data
            and seed; may be empty.
    """

    network: DecoderLM
    settings: dict[str, Any]
    tokenizer: TextTokenizer
    max_length: int
    about: dict[str, Any] = field(default_factory=dict)
