"""`DecoderLM`: what comes out, and that padding and later tokens never reach earlier ones."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_embed import DecoderLM
from lightning_embed.data.batch import Filler
from lightning_embed.data.loader import PlanLoader
from lightning_embed.data.plan import BatchSettings
from lightning_embed.errors import UserError
from lightning_embed.special_tokens import IGNORE_INDEX, PAD_ID
from lightning_embed.watching.meters import graphs_compiled


def padded(rows: list[Tensor], width: int) -> tuple[Tensor, Tensor]:
    """Documents as the data path hands them over: ids and targets one further on."""
    ids = torch.full((len(rows), width), PAD_ID)
    targets = torch.full((len(rows), width), IGNORE_INDEX)
    for number, row in enumerate(rows):
        ids[number, : len(row) - 1] = row[:-1]
        targets[number, : len(row) - 1] = row[1:]
    return ids, targets


def documents(lengths: list[int], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(2, 23, (n,), generator=generator) for n in lengths]


def loss_and_gradients(model: DecoderLM, rows: list[Tensor], width: int):
    model.zero_grad()
    ids, targets = padded(rows, width)
    loss = model.loss(ids, targets)
    loss.backward()
    # Gradients of the mean, as in training; those of a sum grow with the batch.
    n = max(1, int((targets != IGNORE_INDEX).sum()))
    return loss.detach(), {name: p.grad / n for name, p in model.named_parameters()}, model(ids)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("n_kv_heads", [None, 1])
def test_shapes_and_heads(tiny_lm, tied, n_kv_heads) -> None:
    model = tiny_lm(tied=tied, n_kv_heads=n_kv_heads)
    ids, targets = padded(documents([5, 3]), 6)
    logits = model(ids)
    assert logits.shape == (2, 6, 23)
    assert (logits[..., PAD_ID] == -math.inf).all()
    assert logits[..., 2:].isfinite().all()
    assert model.loss(ids, targets).shape == ()
    scores = model.score(ids, targets)
    assert scores.nll.shape == scores.correct.shape == (2, 6)
    assert ("head.weight" in model.state_dict()) == (not tied)
    assert (model.head_weight is model.embedding.weight) == tied


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("scale", [True, False])
def test_loss_and_score_are_the_cross_entropy_of_the_logits(tiny_lm, tied, scale) -> None:
    model = tiny_lm(tied=tied, scale_embedding=scale)
    ids, targets = padded(documents([7, 3, 5]), 8)
    logits = model(ids).flatten(0, 1)
    by_torch = F.cross_entropy(logits, targets.flatten(), reduction="none")
    torch.testing.assert_close(model.loss(ids, targets), by_torch.sum())
    scores = model.score(ids, targets)
    torch.testing.assert_close(scores.nll.flatten(), by_torch.float())
    hits = logits.argmax(-1) == targets.flatten()
    assert torch.equal(scores.correct.flatten(), hits)


@pytest.mark.parametrize("tied", [True, False])
def test_gradients_are_those_of_the_logits_path(tiny_lm, tied) -> None:
    model = tiny_lm(tied=tied)
    ids, targets = padded(documents([7, 3]), 8)
    parameters = list(model.parameters())
    ours = torch.autograd.grad(model.loss(ids, targets), parameters)
    through_logits = F.cross_entropy(model(ids).flatten(0, 1), targets.flatten(), reduction="sum")
    for mine, other in zip(ours, torch.autograd.grad(through_logits, parameters), strict=True):
        torch.testing.assert_close(mine, other)
    assert (ours[0][PAD_ID] == 0).all()  # the embedding's padding row


@given(
    lengths=st.lists(st.integers(2, 12), min_size=1, max_size=4),
    extra=st.integers(0, 9),
    longer=st.lists(st.integers(12, 20), max_size=2),
    qk_norm=st.booleans(),
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_padding_changes_nothing_in_float64(tiny_lm, lengths, extra, longer, qk_norm) -> None:
    """The same rows alone, padded wider, and beside longer rows."""
    model = tiny_lm(qk_norm=qk_norm, n_kv_heads=1)
    rows = documents(lengths)
    narrow = max(lengths) - 1
    loss, gradients, logits = loss_and_gradients(model, rows, narrow)
    wide_loss, wide_gradients, wide_logits = loss_and_gradients(model, rows, narrow + extra)
    close = {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(wide_loss, loss, **close)
    for name, gradient in gradients.items():
        torch.testing.assert_close(wide_gradients[name], gradient, **close)
    for number, row in enumerate(rows):
        real = slice(0, len(row) - 1)
        torch.testing.assert_close(wide_logits[number, real], logits[number, real], **close)
    # Beside longer rows the batch's loss is the sum of what each row has alone.
    others = documents(longer, seed=1)
    width = max(len(r) for r in rows + others) - 1
    mixed_ids, mixed_targets = padded(rows + others, width)
    mixed = model(mixed_ids)
    for number, row in enumerate(rows):
        real = slice(0, len(row) - 1)
        torch.testing.assert_close(mixed[number, real], logits[number, real], **close)
    apart = loss + sum(model.loss(*padded([r], len(r) - 1)) for r in others)
    torch.testing.assert_close(model.loss(mixed_ids, mixed_targets), apart, **close)


@pytest.mark.parametrize("width", [12, 17, 64])
def test_padding_changes_nothing_in_float32(tiny_lm, width) -> None:
    model = tiny_lm(torch.float32)
    rows = documents([12, 5, 2, 9])
    loss, gradients, logits = loss_and_gradients(model, rows, 11)
    wide_loss, wide_gradients, wide_logits = loss_and_gradients(model, rows, width)
    torch.testing.assert_close(wide_loss, loss, rtol=1e-6, atol=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(wide_gradients[name], gradient, rtol=1e-6, atol=1e-6)
    for number, row in enumerate(rows):
        real = slice(0, len(row) - 1)
        torch.testing.assert_close(
            wide_logits[number, real], logits[number, real], rtol=1e-5, atol=1e-5
        )


def test_a_row_of_padding_adds_nothing(tiny_lm) -> None:
    """A rank may have fewer rows than its neighbours; the rest of its batch is padding."""
    model = tiny_lm()
    rows = documents([6, 4])
    loss, gradients, _ = loss_and_gradients(model, rows, 5)
    more_loss, more_gradients, _ = loss_and_gradients(model, [*rows, torch.tensor([1])], 5)
    torch.testing.assert_close(more_loss, loss, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(more_gradients, gradients, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_of_padding_alone_is_zero_and_not_nan(tiny_lm, dtype) -> None:
    model = tiny_lm(dtype)
    ids = torch.full((2, 5), PAD_ID)
    loss = model.loss(ids, torch.full_like(ids, IGNORE_INDEX))
    loss.backward()
    assert float(loss) == 0
    for name, p in model.named_parameters():
        assert (p.grad == 0).all(), name


@pytest.mark.parametrize("position", [1, 4, 7])
def test_a_later_token_never_changes_earlier_logits(tiny_lm, position) -> None:
    model = tiny_lm()
    ids = torch.randint(2, 22, (2, 8), generator=torch.Generator().manual_seed(3))
    changed = ids.clone()
    changed[:, position] += 1
    before, after = model(ids), model(changed)
    assert torch.equal(before[:, :position], after[:, :position])
    differs = (before != after).any(dim=-1)
    assert differs[:, position:].all()  # and the change does reach every later position


@pytest.mark.parametrize("head_dim", [4, 32])
def test_heads_may_be_of_another_width_than_the_stream_divided_by_them(tiny_lm, head_dim) -> None:
    model = tiny_lm(head_dim=head_dim, n_kv_heads=1)
    attention = model.blocks[0].attention
    assert attention.q_proj.weight.shape == (2 * head_dim, 16)
    assert attention.k_proj.weight.shape == (head_dim, 16)
    assert attention.o_proj.weight.shape == (16, 2 * head_dim)
    assert attention.q_norm.weight.shape == (head_dim,)
    ids = torch.randint(2, 22, (2, 8), generator=torch.Generator().manual_seed(3))
    changed = ids.clone()
    changed[:, 4] += 1
    before, after = model(ids), model(changed)
    assert torch.equal(before[:, :4], after[:, :4])
    assert (before != after).any(dim=-1)[:, 4:].all()
    pairs = model.training_flops(0, 1) / 3 / len(model.blocks)
    assert pairs == 4 * 2 * head_dim


def test_heads_of_the_usual_width_are_the_default(tiny_lm) -> None:
    one, other = tiny_lm(), tiny_lm(head_dim=8)
    assert all(torch.equal(x, other.state_dict()[name]) for name, x in one.state_dict().items())


@pytest.mark.parametrize("head_dim", [0, -2, 3])
def test_heads_of_an_odd_width_are_refused(tiny_lm, head_dim) -> None:
    with pytest.raises(
        UserError, match=f"--model.head_dim must be even and at least 2.*{head_dim}"
    ):
        tiny_lm(head_dim=head_dim)


def test_order_matters(tiny_lm) -> None:
    """Without positions the last logits would be the same for any order of what came before."""
    model = tiny_lm(n_layers=1)
    there = model(torch.tensor([[5, 6, 7, 8]]))[0, -1, 2:]
    back = model(torch.tensor([[7, 6, 5, 8]]))[0, -1, 2:]
    assert (there - back).abs().max() > 1e-6


def test_compile_parts_leaves_the_state_dict_alone(tiny_lm, monkeypatch) -> None:
    """Nothing is compiled here: that happens at the first call."""
    monkeypatch.setattr(torch.fx.experimental._config, "use_duck_shape", True)  # put back after
    model = tiny_lm()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.compile_parts()
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[k], before[k]) for k in before)
    compiled = model.chunk_loss
    model.compile_parts()
    assert model.chunk_loss is compiled  # asked at every step; works once


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_training_compiles_a_graph_of_a_block_one_of_the_norm_and_one_of_the_loss(
    make_rows, monkeypatch, layout
) -> None:
    """Whatever the number of rows and their width. Traced only: machine code takes a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    model = DecoderLM(700, 16, 2, 2)
    model.compile_parts()
    lengths = torch.randint(2, 40, (60,), generator=torch.Generator().manual_seed(0)).tolist()
    rows = make_rows(lengths, max_length=16, vocab_size=10_000)
    rows.filler = Filler(rows.filler.tokens % 600 + 4, rows.filler.vocab_size)
    seen, before = set(), graphs_compiled()
    for batch in PlanLoader(
        rows, BatchSettings(64, (8, 12, 16), layout=layout), seed=0, shuffle=True
    ):
        assert batch.segments is not None
        seen.add((*batch.ids.shape, batch.segments.start.shape[0]))
        how = {"segments": batch.segments, "repack": batch.repack}
        model.loss(batch.ids, batch.targets, **how).backward()
    assert layout == "packed" or len(seen) > 3  # or nothing is shown
    assert graphs_compiled() - before == 3
    how |= {"targets": batch.targets, "ids": batch.ids}
    with torch.no_grad():
        compiled = model.eval().score(**how)
        assert graphs_compiled() - before == 3  # evaluation has none of its own
        torch._dynamo.reset()
        with torch.compiler.set_stance("force_eager"):
            eager = model.score(**how)
    assert not compiled.nll.requires_grad
    torch.testing.assert_close(compiled.nll, eager.nll)


def test_meta_device_then_to_empty_then_reset(plus_zero) -> None:
    with torch.device("meta"):
        model = DecoderLM(23, 16, 2, 2, tied=False)
    model.to_empty(device="cpu")
    for p in model.parameters():
        nn.init.constant_(p, float("nan"))
    built = DecoderLM(23, 16, 2, 2, tied=False)
    for either in (model, built):  # construction itself draws some numbers twice
        torch.manual_seed(0)
        either.reset_parameters()
    assert plus_zero(model.embedding.weight[PAD_ID])
    for (name, ours), theirs in zip(model.named_parameters(), built.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    assert model(torch.tensor([[0, 5]])).shape == (1, 2, 23)  # nothing left on meta


def test_each_block_starts_as_the_identity() -> None:
    model = DecoderLM(23, 16, 3, 2)
    ids = torch.tensor([[0, 5, 9]])
    expected = model.norm(model.embedding(ids))
    assert torch.equal(model.hidden(ids), expected)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize("n_kv_heads", [None, 2])
def test_parameter_count(tied, qk_norm, n_kv_heads) -> None:
    v, d, n, h, ff = 50, 32, 3, 4, 40
    model = DecoderLM(v, d, n, h, n_kv_heads, ff, tied=tied, qk_norm=qk_norm)
    channels, kv = d // h, n_kv_heads or h
    block = 2 * d * d + 2 * d * kv * channels + 3 * d * ff + 2 * d + 2 * channels * qk_norm
    expected = v * d * (1 if tied else 2) + n * block + d
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("n_layers", [1, 3])
def test_parameters_are_counted_without_building_them(tied, n_layers) -> None:
    settings = {"d_model": 32, "n_heads": 4, "tied": tied, "n_layers": n_layers}
    built = sum(p.numel() for p in DecoderLM(50, **settings).parameters())
    assert DecoderLM.parameter_count(50, settings) == built


def test_a_checkpoint_fixes_settings_that_exist() -> None:
    assert set(DecoderLM.FREE) < DecoderLM.settings().keys()


def test_default_feed_forward_width() -> None:
    model = DecoderLM(10, 64, 1, 2)
    assert model.blocks[0].feed_forward.up_proj.out_features == 192  # 170.7 rounded up to 32


@pytest.mark.parametrize("name", ["d_model", "n_layers", "n_heads"])
@pytest.mark.parametrize("size", [0, -1])
def test_an_empty_network_is_refused(name, size) -> None:
    settings = {"d_model": 16, "n_layers": 1, "n_heads": 2} | {name: size}
    with pytest.raises(UserError, match=f"--model.{name} must be at least 1, not {size}"):
        DecoderLM(10, **settings)
    with pytest.raises(UserError, match=f"--model.{name} must be at least 1, not {size}"):
        DecoderLM.parameter_count(10, settings)


def test_dropout_only_in_training(tiny_lm) -> None:
    model = tiny_lm(dropout=0.5)
    ids = torch.tensor([[0, 5, 9]])
    assert torch.equal(model(ids), model(ids))
    model.train()
    assert not torch.equal(model(ids)[..., 2:], model(ids)[..., 2:])


def gradients_of_three_steps(
    model: DecoderLM, checkpointed: bool, compiled: bool, precision: torch.dtype
) -> list[Tensor]:
    """Dropout's generator goes on from batch to batch, so that what it is at the end counts too."""
    model.checkpoint_activations = checkpointed
    model.zero_grad()
    torch.manual_seed(1)
    if compiled:
        model.compile_parts()
    for width in (12, 20, 12):
        ids = torch.randint(4, 23, (3, width))
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            model.loss(ids, ids.roll(1)).backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize(
    ("dropout", "precision", "compiled"),
    [
        (0.0, torch.float32, False),
        (0.3, torch.float32, False),
        (0.3, torch.bfloat16, False),
        (0.3, torch.bfloat16, True),
    ],
)
def test_checkpointed_activations_give_the_same_gradients_bit_for_bit(
    tiny_lm, monkeypatch, dropout, precision, compiled
) -> None:
    """Traced only: machine code takes a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    found = [
        gradients_of_three_steps(
            tiny_lm(torch.float32, dropout=dropout).train(), checkpointed, compiled, precision
        )
        for checkpointed in (False, True)
    ]
    assert len(found[0]) == len(found[1]) > 10
    for whole, recomputed in zip(*found, strict=True):
        assert torch.equal(whole, recomputed)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_checkpointing_computes_each_block_once_more_where_there_is_a_backward_pass(
    tiny_lm, checkpointed
) -> None:
    model, calls = tiny_lm(checkpoint_activations=checkpointed), []
    for block in model.layers():
        block.feed_forward.register_forward_pre_hook(lambda *_: calls.append(0))
    ids = torch.randint(4, 23, (3, 8))
    model.score(ids, ids)
    assert len(calls) == 2
    model.loss(ids, ids).backward()
    assert len(calls) == 2 + (4 if checkpointed else 2)


def test_apply_from_the_model_keeps_the_padding_row(tiny_lm, plus_zero) -> None:
    model = tiny_lm()

    def fn(module: nn.Module) -> None:
        if isinstance(module, nn.Embedding | nn.Linear):
            nn.init.normal_(module.weight)

    nn.Sequential(model).apply(fn)
    assert plus_zero(model.embedding.weight[PAD_ID])


def test_training_flops_are_those_of_the_products(tiny_lm) -> None:
    """Against torch's own counter, which counts what is computed: later keys, too, but not those of
    another block of queries. Of five, two queries meet two keys, and three meet all."""
    model = tiny_lm(tied=False)
    ids = torch.randint(2, 23, (3, 5))
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()
    assert model.training_flops(15, 3 * (2 * 2 + 3 * 5)) == counter.get_total_flops()
