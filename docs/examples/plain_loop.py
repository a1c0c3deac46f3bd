"""The loss in a plain PyTorch loop: cross-entropy over real targets that never holds all logits.

`cross_entropy_sum` takes the vectors before the output head and the head's matrix, here the
embedding's own. The sum is divided by the real targets of the whole batch, however it is split into
micro-batches, so a split changes the gradient by rounding alone.
"""

import torch
from torch import Tensor, nn

from lightning_embed import TokenEmbedding
from lightning_embed.model.loss import cross_entropy_sum
from lightning_embed.special_tokens import IGNORE_INDEX, PAD_ID

VOCABULARY, WIDTH = 60, 32


class Recurrent(nn.Module):
    """Ids `(B, T)` to hidden states `(B, T, D)`; the head is the embedding's matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = TokenEmbedding(VOCABULARY, WIDTH)
        self.gru = nn.GRU(WIDTH, WIDTH, batch_first=True)

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        """The sum over real targets."""
        hidden, _ = self.gru(self.embedding(ids))
        head = self.embedding.weight
        return cross_entropy_sum(hidden.flatten(0, 1), head, targets.flatten(), PAD_ID)


def batch() -> tuple[Tensor, Tensor]:
    """Rows that count upwards, of different lengths."""
    ids = torch.full((8, 12), PAD_ID)
    targets = torch.full((8, 12), IGNORE_INDEX)
    for row, length in enumerate([12, 10, 9, 7, 5, 4, 3, 2]):
        count = torch.arange(4 + row, 4 + row + length + 1)
        ids[row, :length], targets[row, :length] = count[:-1], count[1:]
    return ids, targets


if __name__ == "__main__":
    torch.manual_seed(0)
    model = Recurrent()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    ids, targets = batch()
    real = int((targets != IGNORE_INDEX).sum())
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        total = 0.0
        for part in (slice(0, 3), slice(3, 8)):  # two micro-batches of different sizes
            loss = model.loss(ids[part], targets[part]) / real
            loss.backward()
            total += loss.item()
        optimizer.step()
        losses.append(total)
    print(f"loss {losses[0]:.2f} -> {losses[-1]:.2f} over {real} real targets")
    assert losses[-1] < 0.3 * losses[0]
    assert not model.embedding.weight[PAD_ID].any()
