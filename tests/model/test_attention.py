"""Attention against torch's own and against formulas written out."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_embed.model import segments
from lightning_embed.model.attention import Attention, causal_attention, rotary_tables, rotate
from lightning_embed.model.eager import RMSNorm
from lightning_embed.model.segments import KeyBias, KeyRange, Segments

CPU = torch.device("cpu")


def qkv(heads: int, kv_heads: int, length: int, dtype: torch.dtype, channels: int = 8):
    torch.manual_seed(length)
    return (torch.randn(2, n, length, channels, dtype=dtype) for n in (heads, kv_heads, kv_heads))


def whole_rows(
    length: int, heads: int = 4, rows: int = 2, compiled: bool = False
) -> Segments | KeyRange | KeyBias:
    """As the model asks for it: each row one segment."""
    return Segments.of_whole_rows(rows, length, CPU).for_attention(heads, compiled)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [1, 2, 17])
def test_explicit_product_is_torchs_attention(dtype, length, compiled) -> None:
    q, k, v = qkv(4, 4, length, dtype)
    rows = whole_rows(length, compiled=compiled)
    assert isinstance(rows, KeyRange if compiled else KeyBias)
    ours = causal_attention(q, k, v, rows)
    theirs = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("length", [1, 2, 9, 16])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_all_ways_agree_with_gradients(length, kv_heads, monkeypatch) -> None:
    """One product, blocks of it, and beyond EXPLICIT_UP_TO positions the library's kernel, on rows
    that hold one or several windows."""
    segments_ = Segments.of_whole_rows(2, length, CPU)
    segments_.start[1] = torch.tensor([0, 0, 2, 2, 2, 2, 2, 7, 8, 8, 10, 10, 10, 10, 10, 10])[
        :length
    ]
    results = []
    for limit, compiled in ((512, True), (512, False), (0, False)):
        monkeypatch.setattr(segments, "EXPLICIT_UP_TO", limit)
        q, k, v = (x.requires_grad_() for x in qkv(4, kv_heads, length, torch.float64))
        out = causal_attention(q, k, v, segments_.for_attention(4, compiled))
        results.append((out, *torch.autograd.grad(out.square().sum(), (q, k, v))))
    for product, blocks, fused in zip(*results, strict=True):
        torch.testing.assert_close(blocks, product)
        torch.testing.assert_close(fused, product)


def test_norm_and_rotation_of_few_passes_are_the_plain_ones() -> None:
    torch.manual_seed(0)
    norm, tables = RMSNorm(8, eps=1e-3).double(), rotary_tables(torch.arange(5), 8, 10_000.0)
    tables = tuple(table.double() for table in tables)
    with torch.no_grad():
        norm.weight.normal_()
    x = torch.randn(2, 5, 3, 8, dtype=torch.float64, requires_grad=True)  # B, T, H, C
    assert torch.autograd.gradcheck(lambda x, _: norm(x), (x, norm.weight))
    torch.testing.assert_close(norm(x), F.rms_norm(x, (8,), norm.weight, 1e-3))
    assert torch.autograd.gradcheck(lambda x: rotate(x.transpose(1, 2), tables), (x,))
    (cos, sin), (left, right) = tables, x.transpose(1, 2).chunk(2, dim=-1)
    plain = torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)
    torch.testing.assert_close(rotate(x.transpose(1, 2), tables), plain)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("limit", [512, 0])
def test_grouped_queries_are_repeated_heads(kv_heads, limit, monkeypatch) -> None:
    monkeypatch.setattr(segments, "EXPLICIT_UP_TO", limit)
    q, k, v = qkv(4, kv_heads, 9, torch.float64)
    times = 4 // kv_heads
    # Head h of the queries reads key/value head h // times.
    k_all, v_all = (torch.stack([x[:, h // times] for h in range(4)], dim=1) for x in (k, v))
    expected = F.scaled_dot_product_attention(q, k_all, v_all, is_causal=True)
    torch.testing.assert_close(causal_attention(q, k, v, whole_rows(9)), expected)


def test_rotation_is_multiplication_by_a_complex_phase() -> None:
    length, channels, base = 11, 8, 10_000.0
    x = torch.randn(2, 3, length, channels)
    ours = rotate(x, rotary_tables(torch.arange(length), channels, base))
    half = channels // 2
    numbers = torch.complex(x[..., :half].double(), x[..., half:].double())
    for t in range(length):
        for c in range(half):
            angle = torch.tensor(t * base ** (-2 * c / channels), dtype=torch.float64)
            numbers[:, :, t, c] *= torch.polar(torch.ones_like(angle), angle)
    expected = torch.cat((numbers.real, numbers.imag), dim=-1).float()
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


@given(distance=st.integers(0, 20), shift=st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_scores_depend_on_distance_only(distance, shift) -> None:
    tables = rotary_tables(torch.arange(64), 8, 10_000.0)
    torch.manual_seed(0)
    q, k = torch.randn(8, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    turned_q = rotate(q.expand(1, 1, 64, 8), tables)[0, 0]
    turned_k = rotate(k.expand(1, 1, 64, 8), tables)[0, 0]
    at_start = turned_q[distance] @ turned_k[0]
    later = turned_q[distance + shift] @ turned_k[shift]
    assert float(later) == pytest.approx(float(at_start), abs=1e-5)  # tables are float32


def test_rotation_keeps_norms_and_dtype_and_tells_positions_apart() -> None:
    tables = rotary_tables(torch.arange(16), 8, 10_000.0)
    x = torch.randn(1, 1, 1, 8).expand(1, 1, 16, 8)
    turned = rotate(x, tables)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[0, 0, 0], x[0, 0, 0])
    assert (turned[0, 0, 1:] - x[0, 0, 1:]).abs().amax(dim=-1).min() > 1e-3
    assert rotate(x.bfloat16(), tables).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ((10, 4), "d_model 10 .*n_heads 4.*--model.n_heads"),
        ((12, 4), "even"),  # three channels a head have no pairs to rotate
        ((16, 0), "n_heads 0"),
        ((16, 4, 3), "n_heads 4 .*n_kv_heads 3.*--model.n_kv_heads"),
        ((16, 4, 8), "n_kv_heads 8"),
        ((16, 4, 0), "n_kv_heads 0"),
    ],
)
def test_heads_that_do_not_fit_are_refused(sizes, says) -> None:
    with pytest.raises(ValueError, match=says):
        Attention(*sizes)


@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize("autocast", [True, False])
def test_module_shape_dtype_and_norms(qk_norm, autocast) -> None:
    layer = Attention(16, 4, 2, qk_norm=qk_norm)
    assert ("q_norm.weight" in layer.state_dict()) == qk_norm
    assert layer.k_proj.weight.shape == (8, 16)
    tables = rotary_tables(torch.arange(5), 4, 10_000.0)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        out = layer(torch.randn(3, 5, 16), tables, whole_rows(5, rows=3))
    assert out.shape == (3, 5, 16)
    assert out.dtype == (torch.bfloat16 if autocast else torch.float32)
    assert out.isfinite().all()


def test_query_key_norm_ignores_the_scale_of_queries() -> None:
    layer = Attention(16, 2, norm_eps=0.0).double()
    x, tables = torch.randn(1, 5, 16).double(), rotary_tables(torch.arange(5), 8, 10_000.0)
    rows = whole_rows(5, heads=2, rows=1)
    before = layer(x, tables, rows)
    with torch.no_grad():
        layer.q_proj.weight *= 7
    torch.testing.assert_close(layer(x, tables, rows), before)
