"""Our one optimizer against torch's two, and which parameter takes which rule."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_embed import DecoderLM, TokenEmbedding
from lightning_embed.training.optim import (
    MuonAdamW,
    orthogonalise,
    parameter_groups,
    turns,
)

SHAPES = [(8, 8), (16, 4), (4, 16), (8, 8), (16, 4)]  # square, tall, wide; some share a stack
ALL = {"lr": 3e-3, "muon_lr": 0.02, "weight_decay": 0.1, "betas": (0.9, 0.95)}


def random_parameters(shapes: list[tuple[int, ...]], seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def train(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], steps: int) -> None:
    for step in range(steps):
        generator = torch.Generator().manual_seed(100 + step)
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("fused", [False, True])
def test_adamw_rule_is_torchs_bit_by_bit(weight_decay, fused) -> None:
    shapes = [(8, 8), (5,), (), (2, 3, 4)]
    ours, theirs = random_parameters(shapes), random_parameters(shapes)
    settings = {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-7, "weight_decay": weight_decay}
    train(MuonAdamW([{"params": ours, "rule": "adamw", **settings}], fused=fused), ours, 5)
    train(torch.optim.AdamW(theirs, fused=fused, **settings), theirs, 5)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine, other)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_muon_rule_is_torchs(weight_decay) -> None:
    """Close and not equal: matrices of one shape are stacked into one bfloat16 product."""
    ours, theirs = random_parameters(SHAPES), random_parameters(SHAPES)
    start = [p.detach().clone() for p in ours]
    settings = {"lr": 0.05, "momentum": 0.95, "weight_decay": weight_decay}
    group = {"params": ours, "rule": "muon", "dtype": "bfloat16", **settings}
    train(MuonAdamW([group]), ours, 5)
    muon = torch.optim.Muon(theirs, nesterov=True, ns_steps=5, adjust_lr_fn="original", **settings)
    train(muon, theirs, 5)
    for mine, other, before in zip(ours, theirs, start, strict=True):
        moved = float((other - before).detach().norm())
        assert float((mine - other).detach().norm()) < 0.02 * moved


@pytest.mark.parametrize("k", [2, 3, 5])
def test_matrices_take_turns_and_step_further(k) -> None:
    """Against one matrix at a time: momenta move at every step, weights at one in k, k times as far
    by the momentum of that step."""
    together, alone = random_parameters(SHAPES), random_parameters(SHAPES)
    settings = {"rule": "muon", "momentum": 0.9, "weight_decay": 0.1}
    train(MuonAdamW([{"params": together, "lr": 0.05, "turns": k, **settings}]), together, 7)
    optimizers = [MuonAdamW([{"params": [p], "lr": 0.05, **settings}]) for p in alone]
    for step in range(7):
        generator = torch.Generator().manual_seed(100 + step)
        for number, (p, one) in enumerate(zip(alone, optimizers, strict=True)):
            p.grad = torch.randn(p.shape, generator=generator)
            place = [i for i, shape in enumerate(SHAPES) if shape == SHAPES[number]].index(number)
            one.param_groups[0]["lr"] = 0.05 * k if place % k == step % k else 0.0
            one.step()
    for mine, other in zip(together, alone, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-6)


def test_turns_keep_muon_at_a_tenth_of_a_step() -> None:
    """The default run needs none; width 256 on batches as small takes three, and large batches of
    any width none. Where all is small, four have to do."""
    for width, batch, wanted in (
        (128, 2048, 1),
        (256, 2048, 3),
        (256, 16_384, 1),
        (768, 2**19, 1),
        (256, 64, 4),
    ):
        with torch.device("meta"):
            model = DecoderLM(4096, width, n_heads=width // 64)
        shapes = [p.shape for p in model.blocks.parameters() if p.ndim == 2]
        assert turns(shapes, model.training_flops(batch, batch * 128)) == wanted


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 64, 16), (2, 16, 64)])
def test_orthogonalise_brings_singular_values_near_one(shape, dtype) -> None:
    """Five steps of these coefficients do not converge: about 0.7 to 1.2, for any scale."""
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    for scale in (1.0, 1e-3, 1e3):
        result = orthogonalise(matrices * scale, dtype)
        assert result.shape == shape and result.dtype == dtype
        values = torch.linalg.svdvals(result.float())
        # A square random matrix has singular values near 0, which five steps lift only so far.
        assert values.max() < 1.3 and values.median() > 0.6
        if shape[1] != shape[2]:
            assert values.min() > 0.5


def test_orthogonalise_keeps_the_singular_vectors() -> None:
    u, _, vt = torch.linalg.svd(torch.randn(16, 8), full_matrices=False)
    given = u @ torch.diag(torch.linspace(1, 3, 8)) @ vt
    result = orthogonalise(given.unsqueeze(0), torch.float32)[0]
    inner = u.T @ result @ vt.T  # diagonal if the vectors are the same
    off = inner - torch.diag(inner.diagonal())
    assert off.abs().max() < 0.05 and inner.diagonal().min() > 0.5


def test_orthogonalise_of_zeros_is_zeros() -> None:
    assert (orthogonalise(torch.zeros(2, 4, 4), torch.float32) == 0).all()  # not 0 / 0


def test_wide_matrices_step_as_far_as_square_ones_and_tall_ones_further() -> None:
    lengths = []
    for shape in ((8, 8), (8, 32), (32, 8)):
        (p,) = random_parameters([shape])
        before = p.detach().clone()
        train(MuonAdamW([{"params": [p], "rule": "muon", "lr": 1.0}]), [p], 1)
        lengths.append(float(torch.linalg.matrix_norm(p - before, 2).detach()))
    assert lengths[1] == pytest.approx(lengths[0], rel=0.3)
    assert lengths[2] == pytest.approx(2 * lengths[0], rel=0.3)  # sqrt(32 / 8)


@pytest.mark.parametrize("fused", [False, True])
def test_state_dict_round_trip_goes_on_bit_by_bit(fused) -> None:
    def build() -> tuple[MuonAdamW, list[nn.Parameter]]:
        params = random_parameters([(8, 8), (8, 8), (5,), (6, 4)])
        groups = [
            {"params": params[:2], "rule": "muon", "lr": 0.02, "weight_decay": 0.1, "turns": 2},
            {"params": params[2:], "rule": "adamw", "lr": 0.01},
        ]
        return MuonAdamW(groups, fused=fused), params

    optimizer, params = build()
    train(optimizer, params, 3)
    saved = copy.deepcopy(optimizer.state_dict())
    values = [p.detach().clone() for p in params]
    train(optimizer, params, 2)

    again, others = build()
    again.load_state_dict(saved)
    with torch.no_grad():
        for p, value in zip(others, values, strict=True):
            p.copy_(value)
    train(again, others, 2)
    for mine, other in zip(others, params, strict=True):
        assert torch.equal(mine, other)

    fresh, untrained = build()  # without the state it must go elsewhere, or nothing was tested
    with torch.no_grad():
        for p, value in zip(untrained, values, strict=True):
            p.copy_(value)
    train(fresh, untrained, 2)
    assert not any(torch.equal(a, b) for a, b in zip(untrained, params, strict=True))


@pytest.mark.parametrize("fused", [False, True])
def test_loaded_step_counter_lies_where_the_kernel_wants_it(fused) -> None:
    """A checkpoint is read on the CPU; the fused kernel counts steps on the parameter's device.

    The meta device stands in for a GPU.
    """
    settings = {"rule": "adamw", "lr": 0.01}
    params = random_parameters([(5,)])
    optimizer = MuonAdamW([{"params": params, **settings}], fused=fused)
    train(optimizer, params, 1)
    elsewhere = nn.Parameter(params[0].detach().to("meta"))
    again = MuonAdamW([{"params": [elsewhere], **settings}], fused=fused)
    again.load_state_dict(optimizer.state_dict())
    assert again.state[elsewhere]["exp_avg"].is_meta
    assert again.state[elsewhere]["step"].is_meta == fused


def test_parameters_without_gradient_stay() -> None:
    params = random_parameters([(4, 4), (4, 4), (3,)])
    groups = [{"params": params[:2], "rule": "muon"}, {"params": params[2:], "rule": "adamw"}]
    before = [p.detach().clone() for p in params]
    params[0].grad = torch.ones(4, 4)
    optimizer = MuonAdamW(groups)
    optimizer.step()
    moved = [not torch.equal(p, b) for p, b in zip(params, before, strict=True)]
    assert moved == [True, False, False]


def test_closure_runs_with_gradients_on() -> None:
    (p,) = random_parameters([(3,)])

    def closure() -> Tensor:
        loss = p.square().sum()
        loss.backward()
        return loss

    before = float(p.square().sum().detach())
    assert float(MuonAdamW([{"params": [p]}]).step(closure)) == pytest.approx(before)
    assert float(p.square().sum().detach()) < before


@pytest.mark.parametrize(
    ("group", "says"),
    [
        ({"params": [nn.Parameter(torch.ones(3))], "rule": "sgd"}, "rule is 'sgd'"),
        ({"params": [nn.Parameter(torch.ones(3))], "rule": "muon"}, "matrices only"),
        ({"params": [nn.Parameter(torch.ones(3, 3, 3))], "rule": "muon"}, "matrices only"),
    ],
)
def test_bad_groups_are_refused(group, says) -> None:
    with pytest.raises(ValueError, match=says):
        MuonAdamW([group])


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_is_in_one_group(optimizer, tied) -> None:
    model = DecoderLM(23, 16, 2, 2, tied=tied)
    groups = parameter_groups(model, optimizer=optimizer, **ALL)
    ids = [id(p) for group in groups for p in group["params"]]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in model.parameters()}
    MuonAdamW(groups)  # which refuses a vector under Muon


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("tied", [True, False])
def test_who_decays_and_who_takes_which_rule(optimizer, tied) -> None:
    model = DecoderLM(23, 16, 2, 2, tied=tied)
    found = {}
    for group in parameter_groups(model, optimizer=optimizer, **ALL):
        for name, p in model.named_parameters():
            if any(p is member for member in group["params"]):
                found[name] = (group["rule"], group["lr"], group["weight_decay"])
    assert set(found) == {name for name, _ in model.named_parameters()}
    for name, settings in found.items():
        if "proj" in name:
            wanted = ("muon", 0.02, 0.1) if optimizer == "muon" else ("adamw", 3e-3, 0.1)
        else:  # embedding, untied head, norms
            wanted = ("adamw", 3e-3, 0.0)
        assert settings == wanted, name


def test_frozen_parameters_and_biases() -> None:
    model = nn.Sequential(TokenEmbedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].requires_grad_(False)
    groups = parameter_groups(model, optimizer="muon", **ALL)
    assert {g["name"]: len(g["params"]) for g in groups} == {
        "matrices": 1,
        "embeddings": 1,
        "vectors": 1,  # a bias
    }


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_padding_row_stays_plus_zero_whatever_decays(optimizer, plus_zero) -> None:
    """Groups here decay everything: even so a product with +0 and a zero gradient leaves +0."""
    model = DecoderLM(23, 16, 1, 2)
    groups = parameter_groups(model, optimizer=optimizer, **ALL)
    stepper = MuonAdamW([g | {"weight_decay": 0.1} for g in groups], fused=True)
    ids = torch.tensor([[0, 5, 9, 1]])
    for _ in range(5):
        stepper.zero_grad()
        model.loss(ids, torch.tensor([[5, 9, 2, -100]])).backward()
        stepper.step()
    assert plus_zero(model.embedding.weight[1])
    assert plus_zero(model.embedding.weight.grad[1])


# A step that is skipped on the device


def stepped(bad_at: int | None, rule: str) -> tuple[list[Tensor], dict[str, Any]]:
    """Three steps as on a GPU, where masks do what a look at the flag does on CPU."""
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(6, 4)) for _ in range(2)]
    group = {"params": parameters, "rule": rule, "lr": 0.1, "weight_decay": 0.1}
    optimizer = MuonAdamW([group], fused=True)
    for step in range(3):
        bad = step == bad_at
        if bad_at is not None:
            optimizer.found_inf = torch.tensor(float(bad))
        if bad:
            for parameter in parameters:
                parameter.grad = torch.full((6, 4), math.nan)
        elif bad_at is not None and step > bad_at:
            for number, parameter in enumerate(parameters):
                parameter.grad = gradient(step - 1, number)
        else:
            for number, parameter in enumerate(parameters):
                parameter.grad = gradient(step, number)
        if bad_at is None and step == 2:
            break
        way = optimizer._muon if rule == "muon" else optimizer._adamw
        with torch.no_grad():
            way(optimizer.param_groups[0], parameters)
    return [p.detach() for p in parameters], optimizer.state_dict()["state"]


def gradient(step: int, number: int) -> Tensor:
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(10 * step + number))


@pytest.mark.parametrize("rule", ["muon", "adamw"])
@pytest.mark.parametrize("bad_at", [0, 1, 2])
def test_a_step_masked_on_the_device_leaves_no_trace(rule: str, bad_at: int) -> None:
    weights, state = stepped(bad_at, rule)
    plain_weights, plain_state = stepped(None, rule)
    for one, other in zip(weights, plain_weights, strict=True):
        assert torch.equal(one, other)
    for key, moments in plain_state.items():
        for name, moment in moments.items():
            assert torch.equal(state[key][name], moment), name
