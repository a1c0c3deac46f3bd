"""`TokenEmbedding`: the padding row is the bits of +0 after everything that can happen to it."""

import copy
import math
import pickle
from collections.abc import Callable
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lightning_embed import TokenEmbedding
from lightning_embed.padding.embedding import InitName

INITS = get_args(InitName)
REFERENCES = {
    "normal": lambda w: nn.init.normal_(w, std=w.shape[1] ** -0.5),
    "uniform": lambda w: nn.init.uniform_(w, -(w.shape[1] ** -0.5), w.shape[1] ** -0.5),
    "torch": nn.init.normal_,
    "xavier_uniform": nn.init.xavier_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
    "kaiming_uniform": nn.init.kaiming_uniform_,
    "kaiming_normal": nn.init.kaiming_normal_,
}
STD = {  # of a (V, D) matrix, from the papers' formulas; torch's fan_in is D and fan_out V
    "normal": lambda v, d: d**-0.5,
    "uniform": lambda v, d: (3 * d) ** -0.5,
    "torch": lambda v, d: 1.0,
    "xavier_uniform": lambda v, d: math.sqrt(2 / (v + d)),
    "xavier_normal": lambda v, d: math.sqrt(2 / (v + d)),
    "kaiming_uniform": lambda v, d: math.sqrt(2 / d),
    "kaiming_normal": lambda v, d: math.sqrt(2 / d),
}
POISON = (float("nan"), float("inf"), -0.0, 1.0)


def init_everything(module: nn.Module) -> None:
    """What people write for `model.apply`: it knows nothing of padding."""
    if isinstance(module, nn.Embedding | nn.Linear):
        nn.init.normal_(module.weight, std=0.02)


def test_is_a_drop_in_for_the_original_class(plus_zero) -> None:
    embedding = TokenEmbedding(10000, 512)
    assert isinstance(embedding, nn.Embedding)
    assert sum(p.numel() for p in embedding.parameters()) == 5_120_000
    vectors = embedding(torch.tensor([3, 28, 1, 0]))
    assert vectors.shape == (4, 512)
    assert plus_zero(vectors[2])
    assert (vectors[[0, 1, 3]].abs().amax(dim=1) > 0).all()


@pytest.mark.parametrize("init", INITS)
def test_initialisation_is_torchs_but_for_the_padding_row(init, plus_zero) -> None:
    torch.manual_seed(5)
    weight = TokenEmbedding(300, 200, init=init).weight.detach()
    torch.manual_seed(5)
    expected = REFERENCES[init](torch.empty(300, 200))
    assert plus_zero(weight[1])
    others = torch.arange(300) != 1
    assert torch.equal(weight[others], expected[others])
    # Independent of torch's names: 60,000 draws estimate a standard deviation to about 0.3 %.
    assert float(weight[others].std()) == pytest.approx(STD[init](300, 200), rel=0.02)
    if "uniform" in init:
        assert float(weight.abs().max()) <= STD[init](300, 200) * math.sqrt(3)


def test_normal_is_the_default_initialisation() -> None:
    assert TokenEmbedding(10, 4).init == "normal"


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("poison", POISON)
def test_reset_parameters_restores_zero(init, poison, plus_zero) -> None:
    embedding = TokenEmbedding(10, 4, init=init)
    before = embedding.weight.detach().clone()
    nn.init.constant_(embedding.weight, poison)
    embedding.reset_parameters()
    assert plus_zero(embedding.weight[1])
    assert not torch.equal(embedding.weight, before)  # drawn anew, not remembered
    assert embedding.weight.isfinite().all()


@pytest.mark.parametrize("init", INITS)
def test_meta_device_then_to_empty_then_reset(init, plus_zero) -> None:
    with torch.device("meta"):
        embedding = TokenEmbedding(300, 200, init=init)
    assert embedding.weight.is_meta
    embedding.to_empty(device="cpu")
    nn.init.constant_(embedding.weight, float("nan"))  # what uninitialised memory may hold
    embedding.reset_parameters()
    assert plus_zero(embedding.weight[1])
    assert float(embedding.weight.detach().std()) == pytest.approx(STD[init](300, 200), rel=0.02)


def test_device_argument_reaches_the_weight() -> None:
    assert TokenEmbedding(5, 4, device="meta", dtype=torch.bfloat16).weight.is_meta
    assert TokenEmbedding(5, 4, dtype=torch.bfloat16).weight.dtype == torch.bfloat16


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("poison", [*POISON, None])
def test_apply_from_any_parent_keeps_zero(depth, poison, plus_zero) -> None:
    embedding = TokenEmbedding(10, 4)
    module: nn.Module = embedding
    for _ in range(depth):
        module = nn.Sequential(nn.Linear(4, 4), module)
    before = embedding.weight.detach().clone()

    def fn(child: nn.Module) -> None:
        if poison is None:
            init_everything(child)
        elif isinstance(child, nn.Embedding):
            nn.init.constant_(child.weight, poison)

    assert module.apply(fn) is module  # as nn.Module.apply, which people chain
    assert plus_zero(embedding.weight[1])
    assert not torch.equal(embedding.weight[2:], before[2:])  # fn did run


def test_apply_keeps_zero_in_a_list_a_dict_and_a_lightning_module(plus_zero) -> None:
    import lightning as L

    class Holder(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.listed = nn.ModuleList([TokenEmbedding(10, 4)])
            self.named = nn.ModuleDict({"words": TokenEmbedding(10, 4)})

    holder = Holder()
    holder.apply(init_everything)
    assert plus_zero(holder.listed[0].weight[1])
    assert plus_zero(holder.named["words"].weight[1])


@pytest.mark.parametrize("poison", POISON)
def test_zero_means_the_bits_of_plus_zero(poison) -> None:
    embedding = TokenEmbedding(10, 4)
    with torch.no_grad():
        embedding.weight[1] = poison
    embedding.zero_padding_()
    assert (embedding.weight[1].view(torch.int32) == 0).all()


def test_scale_multiplies_by_the_root_of_the_width(plus_zero) -> None:
    embedding = TokenEmbedding(10, 16, scale=True)
    ids = torch.tensor([[3, 1], [0, 9]])
    assert torch.equal(embedding(ids), embedding.weight[ids] * 4)
    assert plus_zero(embedding(ids)[0, 1])
    embedding.scale = False
    assert torch.equal(embedding(ids), embedding.weight[ids])


def test_from_pretrained_copies_and_zeroes(plus_zero) -> None:
    theirs = torch.ones(10, 4)
    embedding = TokenEmbedding.from_pretrained(theirs)
    assert torch.equal(theirs, torch.ones(10, 4))  # never the caller's tensor
    assert embedding.weight.data_ptr() != theirs.data_ptr()
    assert plus_zero(embedding.weight[1])
    assert torch.equal(embedding.weight[2:], theirs[2:])
    assert isinstance(embedding, TokenEmbedding)
    assert not embedding.weight.requires_grad


def test_from_pretrained_options() -> None:
    theirs = torch.ones(10, 4, dtype=torch.float64, requires_grad=True)
    embedding = TokenEmbedding.from_pretrained(
        theirs, d_model=4, padding_idx=None, freeze=False, scale=True
    )
    assert embedding.weight.requires_grad and embedding.weight.is_leaf
    assert embedding.weight.dtype == torch.float64
    assert (embedding(torch.tensor([1])) == 2).all()
    embedding(torch.tensor([1])).sum().backward()
    assert theirs.grad is None  # a copy, not a view in the caller's graph


@pytest.mark.parametrize(
    ("weight", "d_model", "says"),
    [
        (torch.ones(10, 4), 5, "width 4.*d_model is 5"),
        (torch.ones(10), None, r"\(10,\)"),
        (torch.ones(2, 3, 4), None, r"\(2, 3, 4\)"),
    ],
)
def test_from_pretrained_refuses(weight, d_model, says) -> None:
    with pytest.raises(ValueError, match=says):
        TokenEmbedding.from_pretrained(weight, d_model=d_model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tied_head_never_predicts_padding_nor_trains_it(dtype, plus_zero) -> None:
    torch.manual_seed(0)
    embedding = TokenEmbedding(10, 4).to(dtype)
    ids = torch.tensor([[3, 5, 2, 1, 1]])
    logits = embedding.logits(embedding(ids))
    assert logits.shape == (1, 5, 10) and logits.dtype == dtype
    assert (logits[..., 1] == -math.inf).all()
    assert logits[..., torch.arange(10) != 1].isfinite().all()
    assert (logits.softmax(-1)[..., 1] == 0).all()
    targets = torch.tensor([5, 2, 7, -100, -100])
    F.cross_entropy(logits.float().flatten(0, 1), targets).backward()
    gradient = embedding.weight.grad
    assert (gradient[1] == 0).all()
    assert gradient.isfinite().all() and (gradient[[3, 5, 2]] != 0).any(dim=1).all()


def test_plain_tied_head_would_train_padding() -> None:
    """The trap this class is for; were it gone from torch, the masked logit could go as well."""
    embedding = nn.Embedding(10, 4, padding_idx=1)
    logits = F.linear(embedding(torch.tensor([3, 5])), embedding.weight)
    F.cross_entropy(logits, torch.tensor([5, 2])).backward()
    assert (embedding.weight.grad[1] != 0).any()


def test_logits_are_the_matrix_product() -> None:
    embedding = TokenEmbedding(10, 4, padding_idx=None)
    hidden = torch.randn(2, 3, 4)
    assert torch.allclose(embedding.logits(hidden), hidden @ embedding.weight.T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (2, 3, 4), (0,), (2, 0)])
def test_shape_and_dtype_for_any_ids(shape, scale, dtype) -> None:
    embedding = TokenEmbedding(10, 4, scale=scale).to(dtype)
    vectors = embedding(torch.zeros(shape, dtype=torch.long))
    assert vectors.shape == (*shape, 4)
    assert vectors.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype) -> None:
    embedding = TokenEmbedding(10, 4, scale=True)
    ids = torch.tensor([[3, 1]])
    with torch.autocast("cpu", dtype=dtype):
        vectors = embedding(ids)
        logits = embedding.logits(vectors)
    assert vectors.shape == (1, 2, 4) and (vectors[0, 1] == 0).all()
    assert (logits[..., 1] == -math.inf).all()
    logits[..., 2:].float().sum().backward()
    assert (embedding.weight.grad[1] == 0).all()


@pytest.mark.parametrize("ids_dtype", [torch.int32, torch.int64])
def test_integer_kinds_of_ids(ids_dtype) -> None:
    embedding = TokenEmbedding(10, 4)
    assert torch.equal(embedding(torch.tensor([3], dtype=ids_dtype)), embedding.weight[[3]])


@pytest.mark.filterwarnings("ignore:the padding row of")
def test_state_dict_is_that_of_an_embedding(plus_zero) -> None:
    plain = nn.Embedding(10, 4)  # without padding: its row 1 is not zero
    ours = TokenEmbedding(10, 4)
    assert list(ours.state_dict()) == list(plain.state_dict()) == ["weight"]
    saved = plain.state_dict()
    result = ours.load_state_dict(saved)
    assert not result.missing_keys and not result.unexpected_keys
    assert plus_zero(ours.weight[1])
    assert torch.equal(ours.weight[2:], plain.weight[2:])
    assert (saved["weight"][1] != 0).any()  # theirs is as it was
    plain.load_state_dict(ours.state_dict())  # and the way back


@pytest.mark.filterwarnings("ignore:the padding row of")
@pytest.mark.parametrize("poison", POISON)
def test_a_row_that_is_not_zero_in_a_state_dict_becomes_zero(poison, plus_zero) -> None:
    model = nn.Sequential(nn.Linear(4, 4), TokenEmbedding(10, 4))
    saved = copy.deepcopy(model.state_dict())
    saved["1.weight"][1] = poison
    model.load_state_dict(saved)
    assert plus_zero(model[1].weight[1])


@pytest.mark.parametrize("bad", [-1, 10, 2**40])
def test_an_id_outside_the_vocabulary_is_named(bad) -> None:
    with pytest.raises(IndexError, match=rf"id {bad} .*vocabulary of 10 \(ids 0 to 9\)"):
        TokenEmbedding(10, 4)(torch.tensor([[3, bad]]))


def vmapped(embedding: TokenEmbedding) -> Callable[[Tensor], Tensor]:
    return torch.vmap(embedding)


def exported(embedding: TokenEmbedding) -> Callable[[Tensor], Tensor]:
    example = (torch.zeros(3, 4, dtype=torch.int64),)
    rows = {0: torch.export.Dim("rows")}
    return torch.export.export(embedding, example, dynamic_shapes=(rows,)).module()


def compiled(embedding: TokenEmbedding) -> Callable[[Tensor], Tensor]:
    return torch.compile(embedding, fullgraph=True, backend="eager")  # the tracing is at issue


@pytest.mark.parametrize("transform", [vmapped, exported, compiled])
def test_tracing_does_not_read_ids(transform, plus_zero) -> None:
    embedding = TokenEmbedding(10, 4, scale=True)
    ids = torch.tensor([[3, 1], [2, 9], [0, 1], [4, 5], [1, 1]]).repeat(1, 2)
    found = transform(embedding)(ids)
    assert torch.equal(found, embedding(ids)) and plus_zero(found[ids == 1])


def test_under_fake_tensors_only_shapes_are_known() -> None:
    with FakeTensorMode():
        assert TokenEmbedding(10, 4)(torch.zeros(2, 3, dtype=torch.int64)).shape == (2, 3, 4)


def test_an_id_outside_the_vocabulary_is_refused_under_vmap_too() -> None:
    with pytest.raises(IndexError, match=r"^an id is outside the vocabulary of 10 \(ids 0 to 9\)$"):
        torch.vmap(TokenEmbedding(10, 4))(torch.tensor([[3], [10]]))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"init": "gauss"}, "gauss.*normal, uniform, torch"),
        ({"vocab_size": 0}, "not 0 and 4"),
        ({"d_model": 0}, "not 10 and 0"),
        ({"padding_idx": 10}, "padding_idx 10.*vocabulary of 10"),
        ({"padding_idx": -11}, "padding_idx -11"),
        ({"vocab_size": 1}, "padding_idx 1 .*vocabulary of 1"),
    ],
)
def test_bad_arguments_are_named(arguments, says) -> None:
    with pytest.raises(ValueError, match=says):
        TokenEmbedding(**({"vocab_size": 10, "d_model": 4} | arguments))


def test_negative_padding_idx_counts_from_the_end(plus_zero) -> None:
    embedding = TokenEmbedding(10, 4, -1)
    assert embedding.padding_idx == 9
    assert plus_zero(embedding.weight[9]) and (embedding.weight[1] != 0).any()
    assert (embedding.logits(torch.ones(4))[9] == -math.inf).all()


def test_without_padding_idx_nothing_is_touched() -> None:
    embedding = TokenEmbedding(10, 4, None)
    assert (embedding.weight != 0).any(dim=1).all()
    embedding.apply(init_everything)
    assert (embedding.weight != 0).any(dim=1).all()
    assert embedding.logits(torch.ones(4)).isfinite().all()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_copies_keep_working(duplicate, plus_zero) -> None:
    embedding = TokenEmbedding(10, 4, scale=True, init="uniform")
    twin = duplicate(embedding)
    ids = torch.tensor([3, 1])
    assert torch.equal(twin(ids), embedding(ids))
    twin.reset_parameters()
    assert plus_zero(twin.weight[1]) and not torch.equal(twin.weight, embedding.weight)
    assert float(twin.weight.detach().abs().max()) <= 0.5  # still the uniform one


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_row_survives_training_through_a_tied_head(optimizer, plus_zero) -> None:
    """Weight decay and momentum included: a product with the row keeps +0 only if it is +0."""
    torch.manual_seed(0)
    embedding = TokenEmbedding(10, 4)
    opt = optimizer(embedding.parameters(), lr=0.5, weight_decay=0.1)
    for _ in range(5):
        opt.zero_grad()
        logits = embedding.logits(embedding(torch.tensor([3, 5, 1])))
        F.cross_entropy(logits, torch.tensor([5, 2, -100])).backward()
        opt.step()
    assert plus_zero(embedding.weight[1])


def test_repr_names_what_was_chosen() -> None:
    assert "padding_idx=1, scale=True, init='torch'" in repr(
        TokenEmbedding(10, 4, scale=True, init="torch")
    )
