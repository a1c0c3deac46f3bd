"""docs/padding.md, statement by statement and block by block.

The name of a statement's test says which it is: its docstring is the statement, word for word.
"""

import ast
import inspect
import re
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchmetrics.classification import MulticlassAccuracy

PAGE = (Path(__file__).parents[2] / "docs" / "padding.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FIRST_PART = PAGE.split("\n## ")[1]
STATEMENTS = re.findall(r"^- \*\*(.+?)\*\*", FIRST_PART, re.MULTILINE | re.DOTALL)
CLAIMS = [" ".join(statement.split()) for statement in STATEMENTS]


def embedding(rows: int = 10, width: int = 4, padding_idx: int | None = 1) -> nn.Embedding:
    torch.manual_seed(0)
    return nn.Embedding(rows, width, padding_idx)


# -- the page --------------------------------------------------------------------------------


def test_every_statement_has_its_test_and_every_test_its_statement() -> None:
    tests = [
        inspect.cleandoc(function.__doc__ or "")
        for name, function in vars(sys.modules[__name__]).items()
        if name.startswith("test_claim_")
    ]
    assert sorted(" ".join(claim.split()) for claim in tests) == sorted(CLAIMS)
    bullets = [line for line in FIRST_PART.splitlines() if line.startswith(("- ", "* ", "1."))]
    assert len(bullets) == len(CLAIMS)  # a statement without its bold sentence would be missed


def test_every_way_to_drift_has_a_block() -> None:
    ways = re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]
    assert [way[:2] for way in ways] == ["1.", "2.", "3.", "4.", "5."]
    for way in ways:
        assert "```python" in way and "*Prevented:*" in way and "*Noticed:*" in way


def test_the_page_names_what_there_is() -> None:
    """Names of this project in the prose: the classes, the functions, the causes."""
    import lightning_embed.padding.embedding as ours
    from lightning_embed.padding.evidence import EXPLANATIONS

    for name in re.findall(r"`TokenEmbedding\.(\w+)`", PAGE):
        assert hasattr(ours.TokenEmbedding, name)
    functions = re.findall(r"`(protect_padding_row|clear_padding_moments)\(", PAGE)
    assert sorted(functions) == ["clear_padding_moments", "protect_padding_row"]
    assert all(hasattr(ours, name) for name in functions)
    noticed = " ".join(re.findall(r"\*Noticed:\*.*?\n\n", f"{PAGE}\n\n", re.DOTALL))
    causes = {word for word in re.findall(r"`([a-z_]+)`", noticed)}
    assert causes == set(EXPLANATIONS) - {"in_place", "max_norm", "non_finite"}


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_block(block: str) -> None:
    assert isinstance(ast.parse(block).body[-1], ast.Assert)
    torch.manual_seed(0)
    exec(compile(block, "docs/padding.md", "exec"), {"__name__": "padding"})


# -- the statements --------------------------------------------------------------------------


def test_claim_normal() -> None:
    """Every other row starts from the normal distribution N(0, 1)."""
    found = embedding(400, 512)
    rows = found.weight.detach()[torch.arange(400) != 1].flatten()
    assert float(rows.mean()) == pytest.approx(0, abs=0.01)
    assert float(rows.std()) == pytest.approx(1, abs=0.01)  # Xavier's would be 0.05
    assert float((rows**4).mean()) == pytest.approx(3, abs=0.05)  # of a uniform one, 1.8
    torch.manual_seed(0)
    expected = nn.init.normal_(torch.empty(400, 512))
    assert torch.equal(rows, expected[torch.arange(400) != 1].flatten())
    assert float(found.weight.detach().norm(dim=1).median()) == pytest.approx(22.6, abs=0.1)


def test_claim_default() -> None:
    """The default is `padding_idx=None`, and then no row is for padding."""
    found = nn.Embedding(10, 4)
    assert found.padding_idx is None
    assert (found.weight != 0).any(dim=1).all()
    found(torch.arange(10)).sum().backward()
    assert (found.weight.grad == 1).all()


def test_claim_zeroed_once() -> None:
    """The padding row is zeroed at construction and by `reset_parameters()`, and never again."""
    found = embedding()
    assert (found.weight[1] == 0).all()
    with torch.no_grad():
        found.weight[1] = 3.0
    found.train().eval()
    assert (found(torch.tensor([1])) == 3).all()
    found.reset_parameters()
    assert (found.weight[1] == 0).all() and (found.weight[2] != 0).all()


@pytest.mark.parametrize("sparse", [False, True])
def test_claim_gradient(sparse: bool) -> None:
    """The lookup gives the padding row a gradient of zero."""
    found = nn.Embedding(10, 4, padding_idx=1, sparse=sparse)
    optimizer = torch.optim.SGD(found.parameters(), lr=0.1)
    for value in (0.0, 3.0):
        with torch.no_grad():
            found.weight[1] = value
        optimizer.zero_grad()
        before = found.weight.detach().clone()
        found(torch.tensor([1, 5, 1])).sum().backward()
        gradient = found.weight.grad
        if sparse:
            assert gradient.coalesce().indices().tolist() == [[5]]
            gradient = gradient.to_dense()
        assert (gradient[1] == 0).all() and (gradient[5] == 1).all()
        optimizer.step()
        assert torch.equal(found.weight[1], before[1])
        assert not torch.equal(found.weight[5], before[5])


def test_claim_lookup_only() -> None:
    """The gradient is zero in the lookup only."""
    found = embedding()
    F.linear(found(torch.tensor([1, 5])), found.weight).sum().backward()
    assert (found.weight.grad[1] != 0).any()


def test_claim_plain_integer() -> None:
    """`padding_idx` is a plain integer."""
    found = embedding()
    assert type(found.padding_idx) is int
    assert list(found.state_dict()) == ["weight"]
    assert not list(found.buffers()) and len(list(found.parameters())) == 1
    without = nn.Embedding(10, 4)
    result = without.load_state_dict(found.state_dict())
    assert not result.missing_keys and not result.unexpected_keys
    assert without.padding_idx is None


def test_claim_negative() -> None:
    """`padding_idx` may be negative."""
    found = embedding(padding_idx=-1)
    assert found.padding_idx == 9
    assert (found.weight[9] == 0).all() and (found.weight[1] != 0).any()
    for outside in (10, -11):
        with pytest.raises(AssertionError, match="within num_embeddings"):
            embedding(padding_idx=outside)


def test_claim_from_pretrained() -> None:
    """`from_pretrained(weight, padding_idx=...)` keeps the row it is given."""
    found = nn.Embedding.from_pretrained(torch.ones(10, 4), padding_idx=1)
    assert (found.weight[1] == 1).all() and (found(torch.tensor([1])) == 1).all()


def test_claim_attention() -> None:
    """It masks no attention."""
    found = embedding()
    short, padded = found(torch.tensor([[3, 5]])), found(torch.tensor([[3, 5, 1, 1]]))

    def attend(x: torch.Tensor, **mask: object) -> torch.Tensor:
        return F.scaled_dot_product_attention(x, x, x, **mask)[:, :2]  # type: ignore[arg-type]

    assert not torch.allclose(attend(padded), attend(short), atol=1e-2)
    mask = torch.tensor([True, True, False, False])
    torch.testing.assert_close(attend(padded, attn_mask=mask), attend(short))
    causal = attend(padded, is_causal=True)
    torch.testing.assert_close(causal, attend(short, is_causal=True))


def test_claim_loss() -> None:
    """It masks no loss."""
    logits = F.linear(embedding()(torch.tensor([3, 5, 1])), torch.ones(10, 4).cumsum(0))
    each = F.cross_entropy(logits, torch.tensor([5, 7, 1]), reduction="none")
    assert each[2] > 0
    assert F.cross_entropy(logits, torch.tensor([5, 7, 1])) == each.mean()
    assert F.cross_entropy(logits, torch.tensor([5, 7, -100])) == each[:2].mean()


def test_claim_metric() -> None:
    """It masks no metric."""
    answers, targets = torch.tensor([5, 0, 1, 1]), torch.tensor([5, 7, 1, 1])
    assert MulticlassAccuracy(10, average="micro")(answers, targets) == 0.75
    assert MulticlassAccuracy(10, average="micro", ignore_index=1)(answers, targets) == 0.5


def test_claim_computation() -> None:
    """It skips no computation."""
    model = nn.Sequential(embedding(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))

    def operations(ids: torch.Tensor) -> int:
        with FlopCounterMode(display=False) as counter:
            model(ids).sum().backward()
        return counter.get_total_flops()

    padding = operations(torch.ones(3, 5, dtype=torch.long))
    assert padding == operations(torch.full((3, 5), 4)) > 0


def test_claim_zero_does_not_stay() -> None:
    """A zero vector does not stay zero."""
    zero = embedding()(torch.tensor([1]))
    assert (zero == 0).all()
    assert (nn.Linear(4, 4)(zero) != 0).any()
    norm = nn.LayerNorm(4)
    nn.init.constant_(norm.bias, 0.5)
    assert (norm(zero) == 0.5).all()
    assert (zero + nn.Embedding(8, 4)(torch.tensor([6])) != 0).any()  # its position


def test_claim_autocast() -> None:
    """Autocast leaves the lookup in float32."""
    found, linear = embedding(), nn.Linear(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        vectors = found(torch.tensor([1, 5]))
        assert linear(vectors).dtype == torch.bfloat16
        assert found.bfloat16()(torch.tensor([1])).dtype == torch.bfloat16
    assert vectors.dtype == torch.float32


def test_claim_bag() -> None:
    """`nn.EmbeddingBag` is different: there padding does not count in the mean."""
    torch.manual_seed(0)
    bag = nn.EmbeddingBag(10, 4, mode="mean", padding_idx=1)
    torch.testing.assert_close(bag(torch.tensor([[3, 1, 1, 5]])), bag(torch.tensor([[3, 5]])))
    plain = embedding()(torch.tensor([[3, 1, 1, 5]])).mean(dim=1)
    shorter = embedding()(torch.tensor([[3, 5]])).mean(dim=1)
    torch.testing.assert_close(plain * 2, shorter)


def test_claim_none() -> None:
    """Zeroing by hand with `weight[None]` zeroes everything."""
    found = embedding(padding_idx=None)
    found.weight.data[found.padding_idx].zero_()
    assert (found.weight == 0).all()
