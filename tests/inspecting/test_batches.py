"""What is drawn of a batch is the batch; what layouts pad is what their batches hold."""

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from lightning_embed.data.batch import PaddedRows
from lightning_embed.data.loader import PlanLoader
from lightning_embed.data.plan import BatchSettings, Draw, Layout, eighths, plan_epoch
from lightning_embed.inspecting import layouts
from lightning_embed.inspecting.batches import ShownBatch, drawn, shown_batch
from lightning_embed.inspecting.layouts import paddings
from lightning_embed.tokens.tokenizer import TextTokenizer

Make = Callable[..., PaddedRows]


def rows_of(make_rows: Make) -> PaddedRows:
    lengths = np.random.default_rng(0).integers(2, 60, 90).tolist()
    return make_rows(lengths, max_length=32)


def settings(layout: Layout) -> BatchSettings:
    return BatchSettings(256, tuple(eighths(32)), layout=layout)


def loader_of(make_rows: Make, layout: Layout) -> PlanLoader:
    return PlanLoader(rows_of(make_rows), settings(layout), seed=3, shuffle=True)


def look(loader: PlanLoader, batch: int) -> ShownBatch:
    tokenizer = TextTokenizer.characters(["abc"])
    return shown_batch(loader, batch, batch + 1, tokenizer, ["one", "two", "three"])


@pytest.mark.parametrize("layout", get_args(Layout))
def test_every_position_is_told_as_it_is(make_rows: Make, layout: Layout) -> None:
    loader = loader_of(make_rows, layout)
    padded = repacked = 0
    for number, batch in enumerate(loader):
        found = look(loader, number)
        n_rows, width = batch.ids.shape
        assert (found.rows, found.width, found.targets) == (n_rows, width, batch.global_targets)
        shown = len(found.ids)
        assert found.ids == batch.ids[:shown].tolist()
        assert found.target_ids == batch.targets[:shown].tolist()
        owner = np.array(found.windows)
        assert np.array_equal(owner < 0, batch.ids[:shown].numpy() == 1)
        assert found.padding == float((batch.ids == 1).double().mean())
        padded += found.padding > 0
        again = batch.ids if batch.repack is None else batch.ids.flatten()[batch.repack]
        assert (found.repacked_rows, found.repacked_width) == tuple(again.shape)
        assert np.array_equal(np.array(found.repacked) < 0, again[:shown].numpy() == 1)
        assert found.repacked_padding <= found.padding
        repacked += batch.repack is not None
        windows = loader.plan.windows_of(number)
        assert found.documents == loader.rows.windows.document[windows].tolist()
        assert found.sources == [["one", "two", "three"][n % 3] for n in found.documents]
        assert batch.segments is not None
        if batch.repack is None:
            starts = np.arange(width) - batch.segments.positions()[found.near_row].numpy()
            for place in found.near:
                assert place.window_begins == starts[place.position]
                assert place.id == batch.ids[found.near_row, place.position]
                assert place.target == batch.targets[found.near_row, place.position]
                assert (place.target < 0) == (place.target_piece == "")
    assert padded and (repacked or layout == "packed")


def test_rows_are_drawn_to_scale() -> None:
    row = [0] * 50 + [1] * 30 + [-1] * 20
    assert drawn(row, 100, 10) == "00000111.."[:5] + "111.."
    assert drawn(row, 100, 200) == "0" * 50 + "1" * 30 + "." * 20
    assert drawn(row[:50], 100, 10) == "00000"  # a narrower row, to the same scale
    assert drawn([61, 62], 2, 2) == "Z0" and drawn([3], 1, 1) == "3"


@pytest.mark.parametrize("layout", get_args(Layout))
def test_padding_is_what_batches_hold(make_rows: Make, layout: Layout) -> None:
    loader = loader_of(make_rows, layout)
    held = positions = computed = 0
    for batch in loader:
        held += batch.global_targets
        positions += batch.ids.numel()
        computed += batch.ids.numel() if batch.repack is None else batch.repack.numel()
    windows = loader.rows.windows
    (found,) = (x for x in paddings(windows, settings("padded"), seed=3) if x.layout == layout)
    assert found.batches == found.looked_at == len(loader) and not found.is_draw
    assert found.padding == pytest.approx(1 - held / positions)
    assert found.repacked == pytest.approx(1 - held / computed)


def test_of_a_large_text_a_draw_is_planned(
    make_rows: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = rows_of(make_rows).windows
    whole = paddings(windows, settings("packed"), seed=3)
    monkeypatch.setattr(layouts, "WINDOWS", 60)
    monkeypatch.setattr(layouts, "BATCHES", 2)
    for each, all_of_it in zip(paddings(windows, settings("packed"), seed=3), whole, strict=True):
        assert each.is_draw and 40 < each.windows < 80 and each.looked_at == 2
        small = replace(each, windows=0, is_draw=False, batches=0, padding=0, looked_at=0)
        assert 0 <= small.repacked < 0.5 and all_of_it.windows == len(windows)


def test_a_mixture_is_planned_with_its_draw(
    make_rows: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = rows_of(make_rows).windows
    numbers = np.repeat(np.arange(40), 3)  # some windows thrice, most never
    draw = Draw(numbers, windows.length[numbers])
    for each in paddings(windows, settings("packed"), 3, draw):
        assert each.windows == 120 and not each.is_draw and 0 <= each.padding < 0.5
        plan = plan_epoch(windows, settings(each.layout), seed=3, epoch=0, draw=draw)
        held = int(windows.length[numbers].sum())
        assert each.padding == pytest.approx(1 - held / plan.positions())
    monkeypatch.setattr(layouts, "WINDOWS", 60)
    for each in paddings(windows, settings("packed"), 3, draw):
        assert each.windows == 60 and each.is_draw
