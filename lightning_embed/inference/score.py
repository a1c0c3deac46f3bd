"""How likely a trained network finds given texts, token by token."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from lightning_embed.data.windows import cut_windows
from lightning_embed.errors import UserError
from lightning_embed.inference.arguments import require_text
from lightning_embed.model.decoder import DecoderLM
from lightning_embed.special_tokens import IGNORE_INDEX, PAD_ID
from lightning_embed.tokens.tokenizer import TextTokenizer

WINDOWS_AT_ONCE = 8


@dataclass(frozen=True)
class TextScore:
    """What `score_text` finds.

    Attributes:
        ids: of the text's tokens.
        log_probs: natural logarithm of each one's probability, given those before it.
        n_bytes: of the text in UTF-8.
    """

    ids: list[int]
    log_probs: list[float]
    n_bytes: int

    @property
    def loss(self) -> float:
        """Mean of -log p, in nats a token."""
        return -math.fsum(self.log_probs) / len(self.log_probs)

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss) if self.loss < 709 else math.inf  # as far as a float goes

    @property
    def bits_per_byte(self) -> float:
        """Comparable between tokenizers of all kinds that give the text back from its tokens; one
        that loses some of it has less to predict."""
        return -math.fsum(self.log_probs) / math.log(2) / self.n_bytes


@torch.inference_mode()
def score_text(
    network: DecoderLM, tokenizer: TextTokenizer, text: str, *, max_length: int, ends: bool = False
) -> TextScore:
    """Score a text as the beginning of a document.

    Of a text longer than a window each later token is seen behind at least half a window.

    Args:
        network: in evaluation mode.
        tokenizer: of the network.
        text: at least one character.
        max_length: positions of a training window.
        ends: count the end token too, as evaluation does: the text is a whole document.

    Raises:
        UserError: the text is empty or no UTF-8; the network's logits are not finite.
    """
    require_text("text", text)
    if not text:
        raise UserError("the text to score is empty: give at least one character")
    tokens = np.concatenate(tokenizer.encode_documents([text])).astype(np.int64)
    tokens = tokens if ends else tokens[:-1]
    windows = cut_windows(np.array([0, len(tokens)]), max_length, max_length // 2)
    device = network.embedding.weight.device
    log_probs: list[float] = []
    for begin in range(0, len(windows), WINDOWS_AT_ONCE):
        some = windows[np.arange(begin, min(begin + WINDOWS_AT_ONCE, len(windows)))]
        shape = len(some.start), int(some.length.max())
        ids = torch.full(shape, PAD_ID, device="cpu")
        targets = torch.full(shape, IGNORE_INDEX, device="cpu")
        lies = zip(some.start, some.length, some.context, strict=True)
        for row, (start, length, context) in enumerate(lies):
            window = torch.from_numpy(tokens[start : start + length + 1])
            ids[row, :length] = window[:-1]
            targets[row, context:length] = window[1 + context :]
        nll = network.score(ids.to(device), targets.to(device)).nll.cpu()
        if not nll.isfinite().all():
            raise UserError(
                "the network's scores are not finite: its weights are damaged, or its training"
                " diverged"
            )
        log_probs += (-nll[targets != IGNORE_INDEX]).tolist()
    return TextScore(tokens[1:].tolist(), log_probs, len(text.encode()))
