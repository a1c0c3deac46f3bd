"""Tables by source and position, and differences, against sums worked out by hand."""

import math

import numpy as np
import pytest

from lightning_embed.evaluation.breakdown import (
    Scored,
    by_position,
    by_source,
    difference,
    units_of,
    whole,
)
from lightning_embed.evaluation.intervals import ratio_interval
from lightning_embed.evaluation.metrics import WindowScores
from lightning_embed.evaluation.report import shown_name

BIT = math.log(2)


def scored(
    document: list[int], source: list[int], nll: list[float], tokens: list[int], n_bytes: list[int]
) -> Scored:
    """Windows of 16 positions: everything is in the first range but a token of each odd window."""
    columns = np.zeros((3, len(document), 2))
    columns[0, :, 0], columns[1, :, 0], columns[2, :, 0] = nll, np.minimum(tokens, 1), tokens
    late = np.arange(len(document)) % 2 == 1
    columns[2, late, 0] -= 1
    columns[2, late, 1] = 1
    names = [f"file{number}" for number in range(max(source) + 1)]
    scores = WindowScores(*columns, np.array(n_bytes))
    return Scored(scores, np.array(document), np.array(source), names, max_length=16)


def test_a_whole_text_and_its_sources_by_hand() -> None:
    text = scored([0, 0, 1], [1, 1, 0], [4 * BIT, 2 * BIT, 9 * BIT], [3, 3, 2], [4, 2, 3])
    part = whole(text)
    assert (part.documents, part.windows, part.tokens, part.n_bytes) == (2, 3, 8, 9)
    assert part.figures["loss"].value == pytest.approx(15 * BIT / 8)
    assert part.figures["perplexity"].value == pytest.approx(2 ** (15 / 8))
    assert part.figures["accuracy"].value == pytest.approx(3 / 8)
    bits = ratio_interval(np.array([6, 9]), np.array([6, 3]))
    assert part.figures["bits_per_byte"].value == pytest.approx(bits.value)
    assert part.figures["bits_per_byte"].high == pytest.approx(bits.high)
    over, (hard, easy) = by_source(text)
    assert over == "windows" and (hard.name, easy.name) == ("file0", "file1")
    assert hard.figures["bits_per_byte"].value == pytest.approx(3)
    assert not hard.figures["bits_per_byte"].known
    of_windows = ratio_interval(np.array([4, 2]), np.array([4, 2]))
    assert easy.figures["bits_per_byte"].high == pytest.approx(of_windows.high)


def test_positions_have_targets_of_their_own() -> None:
    text = scored([0, 1, 2, 3], [0, 0, 1, 1], [4, 4, 4, 4], [5, 5, 5, 5], [9, 9, 9, 9])
    early, late = by_position(text)
    assert (early.name, early.tokens, early.windows) == ("0-7", 18, 4)
    assert (late.name, late.tokens, late.windows) == ("8-15", 2, 2)
    assert early.figures["loss"].value == pytest.approx(16 / 18) and "bits_per_byte" not in (
        early.figures
    )
    total = sum(part.figures["loss"].value * part.tokens for part in (early, late))
    assert total / 20 == pytest.approx(whole(text).figures["loss"].value)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a/short/name.py", "a/short/name.py"),
        ("setuptools/command/build_ext.py", "…/build_ext.py"),
        ("a/command/build_ext.py", "…/build_ext.py"),
        ("lib/command/build.py", "lib/command/build.py"),
        ("long/a_name_that_is_far_too_long.py", "…/a_name_that_is_fa…"),
    ],
)
def test_names_are_cut_at_a_slash(name: str, wanted: str) -> None:
    assert shown_name(name) == wanted and len(wanted) <= 20


def test_windows_that_were_not_evaluated_do_not_count() -> None:
    seen = scored([0, 1], [0, 1], [4, 8], [2, 2], [3, 3])
    some = scored([0, 1, 2], [0, 1, 2], [4, 8, 0], [2, 2, 0], [3, 3, 0])
    some.scores.tokens[2] = 0
    assert whole(some) == whole(seen)
    assert [part.name for part in by_source(some)[1]] == ["file1", "file0"]


@pytest.mark.parametrize(
    ("files", "each", "wanted"),
    [
        *((1, 1, "windows"), (1, 3, "documents"), (9, 1, "documents"), (9, 30, "documents")),
        *((10, 1, "files"), (10, 3, "files")),
    ],
)
def test_intervals_are_over_the_largest_units_there_are_enough_of(
    files: int, each: int, wanted: str
) -> None:
    n = files * each
    document = np.arange(n)
    text = scored(document, document // each, [1.0] * n, [2] * n, [2] * n)  # type: ignore[arg-type]
    over, units = units_of(text)
    assert over == wanted and len(np.unique(units)) == (files if wanted == "files" else n)


def test_a_difference_pairs_documents_however_they_are_cut() -> None:
    """Sources are numbered in another order, as another preparation may have them."""
    one = scored([0, 0, 1], [1, 1, 0], [4 * BIT, 2 * BIT, 9 * BIT], [3, 3, 2], [4, 2, 3])
    other = scored([0, 1, 1], [0, 1, 1], [7 * BIT, 2 * BIT, 3 * BIT], [9, 3, 3], [6, 1, 2])
    over, found = difference(one, other)
    wanted = ratio_interval(np.array([-1, 4]), np.array([6, 3]))
    assert over == "documents" and found.value == pytest.approx(3 / 9)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


def test_a_difference_over_files_is_of_the_first_models_files() -> None:
    n = 20
    nats = np.random.default_rng(0).random((2, n))
    one = scored(list(range(n)), [x // 2 for x in range(n)], list(nats[0]), [1] * n, [2] * n)
    turned = [9 - x // 2 for x in range(n)]
    other = scored(list(range(n)), turned, list(nats[1]), [1] * n, [2] * n)
    over, found = difference(one, other)
    of_files = (nats[0] - nats[1]).reshape(10, 2).sum(axis=1) / BIT
    assert over == "files" and found.units == 10
    assert found.low == pytest.approx(ratio_interval(of_files, np.full(10, 4)).low)


def test_one_document_has_a_difference_over_windows_where_both_are_cut_alike() -> None:
    one = scored([0, 0], [0, 0], [3, 5], [2, 2], [4, 4])
    alike = scored([0, 0], [0, 0], [2, 5], [2, 2], [4, 4])
    over, found = difference(one, alike)
    assert over == "windows" and found.units == 2 and found.known
    over, found = difference(one, scored([0, 0], [0, 0], [2, 5], [2, 2], [5, 3]))
    assert over == "documents" and not found.known
    assert found.value == pytest.approx(1 / BIT / 8)


def test_a_pairing_is_surer_than_two_figures() -> None:
    """Two models that differ by the same everywhere: the difference is certain, figures are not."""
    draw = np.random.default_rng(1)
    n, n_bytes = 30, [10] * 30
    nll = draw.random(n) * 10
    one = scored(list(range(n)), list(range(n)), list(nll), [4] * n, n_bytes)
    other = scored(list(range(n)), list(range(n)), list(nll + 1), [4] * n, n_bytes)
    bits = whole(one).figures["bits_per_byte"]
    found = difference(one, other)[1]
    assert bits.high - bits.low > 0.2
    assert (found.low, found.high) == pytest.approx((-0.1 / BIT, -0.1 / BIT))
