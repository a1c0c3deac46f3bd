"""`TokenEmbedding` in an encoder of plain PyTorch: a drop-in for `nn.Embedding`.

What padding holds does not matter to the real tokens, and re-initialising the whole model, as most
training scripts do, leaves its vector zero.
"""

import torch
from torch import Tensor, nn

from lightning_embed import TokenEmbedding

PAD = 1


class Encoder(nn.Module):
    """Ids `(B, T)` to one vector of each row `(B, D)`, the mean over its real tokens."""

    def __init__(self, vocab_size: int = 100, d_model: int = 32) -> None:
        super().__init__()
        self.embedding = TokenEmbedding(vocab_size, d_model, padding_idx=PAD, scale=True)
        layer = nn.TransformerEncoderLayer(d_model, 4, 64, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, ids: Tensor) -> Tensor:
        padding = ids == PAD
        hidden = self.layers(self.embedding(ids), src_key_padding_mask=padding)
        real = (~padding).unsqueeze(-1)
        return (hidden * real).sum(1) / real.sum(1)


def initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)


if __name__ == "__main__":
    torch.manual_seed(0)
    encoder = Encoder()
    encoder.apply(initialise)
    assert not encoder.embedding.weight[PAD].any()

    short = torch.tensor([[7, 8, 9]])
    padded = torch.tensor([[7, 8, 9, PAD, PAD]])
    torch.testing.assert_close(encoder(short), encoder(padded))

    optimizer = torch.optim.AdamW(encoder.parameters(), lr=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        encoder(padded).square().sum().backward()
        optimizer.step()
    assert not encoder.embedding.weight[PAD].any()
    print("padding's vector is zero after 20 steps")
