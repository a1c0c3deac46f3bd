"""Finding padded embeddings wherever they are."""

import pytest
import torch
from torch import nn

from lightning_embed import TokenEmbedding
from lightning_embed.padding.padded import find_padded_embeddings


def found(module: nn.Module) -> list[tuple[str, int]]:
    return [(e.name, e.padding_idx) for e in find_padded_embeddings(module)]


def test_nested_in_lists_and_dicts() -> None:
    model = nn.ModuleDict(
        {
            "words": TokenEmbedding(5, 4),
            "parts": nn.ModuleList([nn.Linear(4, 4), nn.Embedding(5, 4, padding_idx=2)]),
            "plain": nn.Embedding(5, 4),
        }
    )
    assert found(model) == [("words.weight", 1), ("parts.1.weight", 2)]


def test_an_embedding_itself() -> None:
    assert found(nn.Embedding(5, 4, padding_idx=3)) == [("weight", 3)]


def test_none() -> None:
    assert found(nn.Linear(4, 4)) == []


def test_negative_index_is_counted_from_the_end() -> None:
    assert found(nn.Embedding(5, 4, padding_idx=-1)) == [("weight", 4)]


def test_embedding_bag() -> None:
    bag = nn.EmbeddingBag(5, 4, padding_idx=1, mode="sum")
    assert found(bag) == [("weight", 1)]


def test_shared_module_and_shared_weight_come_once() -> None:
    one, two = TokenEmbedding(5, 4), TokenEmbedding(5, 4)
    two.weight = one.weight
    assert found(nn.ModuleDict({"a": one, "b": one, "c": two})) == [("a.weight", 1)]


def test_row_is_a_view() -> None:
    embedding = TokenEmbedding(5, 4)
    (only,) = find_padded_embeddings(embedding)
    with torch.no_grad():
        embedding.weight[1] = 7
    assert (only.row() == 7).all()
    only.row().fill_(3)
    assert (embedding.weight[1] == 3).all() and (embedding.weight[0] != 3).any()


@pytest.mark.parametrize("sparse", [False, True])
def test_gradient_row(sparse) -> None:
    embedding = nn.Embedding(5, 4, padding_idx=1, sparse=sparse)
    (only,) = find_padded_embeddings(embedding)
    assert only.gradient_row() is None  # before any backward
    embedding(torch.tensor([0, 1, 3])).sum().backward()
    assert (only.gradient_row() == 0).all()  # a sparse gradient holds no such row
    # Rows that are there are found; a second gradient makes a sparse one hold a row twice.
    other = only._replace(padding_idx=3)
    assert (other.gradient_row() == 1).all()
    embedding(torch.tensor([3])).sum().backward()
    assert (other.gradient_row() == 2).all()
