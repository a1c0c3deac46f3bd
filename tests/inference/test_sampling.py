"""Draws follow the probabilities, and each option keeps what it says."""

import math
from collections import Counter

import pytest
import torch

from lightning_embed.errors import UserError
from lightning_embed.inference.sampling import Sampling, penalise, pick


def drawn(probabilities: list[float], n: int = 2000, **settings) -> dict[int, float]:
    """How often each id was drawn."""
    sampling = Sampling(**({"temperature": 1.0, "top_k": None} | settings))
    logits = torch.tensor(probabilities).log().expand(n, -1)
    ids = pick(logits, sampling, [sampling.draws(row) for row in range(n)])
    return {i: c / n for i, c in sorted(Counter(ids.tolist()).items())}


def test_draws_follow_the_probabilities() -> None:
    found = drawn([0.5, 0.0, 0.3, 0.2])
    assert set(found) == {0, 2, 3}
    for token, share in ((0, 0.5), (2, 0.3), (3, 0.2)):  # four standard deviations
        assert found[token] == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 2000))


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"top_k": 2}, {0, 2}),
        ({"top_k": 0}, {0, 2, 3, 4}),
        ({"top_k": 50}, {0, 2, 3, 4}),  # more than there are
        ({"top_p": 0.45}, {0}),
        ({"top_p": 0.55}, {0, 2}),  # the id that reaches the share stays in
        ({"top_p": 0.85}, {0, 2, 3}),
        ({"top_k": 3, "top_p": 0.95}, {0, 2, 3}),
        ({"temperature": 0}, {0}),
        ({"temperature": 100.0, "top_k": 2}, {0, 2}),
    ],
)
def test_top_k_and_top_p_keep_the_most_likely(settings, kept) -> None:
    assert set(drawn([0.5, 0.0, 0.3, 0.15, 0.05], **settings)) == kept


def test_low_temperature_sharpens_and_high_flattens() -> None:
    cold, warm, hot = (drawn([0.7, 0.3], temperature=t)[0] for t in (0.3, 1.0, 10.0))
    assert cold > warm > hot
    expected = 0.7 ** (1 / 0.3) / (0.7 ** (1 / 0.3) + 0.3 ** (1 / 0.3))
    assert cold == pytest.approx(expected, abs=0.03)


class Last:
    """A source that draws the highest number there is."""

    def random(self) -> float:
        return math.nextafter(1.0, 0.0)


@pytest.mark.parametrize("settings", [{"top_k": None}, {"top_k": 3}, {"top_k": 3, "top_p": 0.9}])
def test_the_highest_draw_takes_no_impossible_id(settings) -> None:
    logits = torch.tensor([[0.0, -math.inf, 3.0, 1.0, -math.inf]])
    assert pick(logits, Sampling(temperature=1.0, **settings), [Last()]).item() in (0, 2, 3)


def test_a_penalty_makes_ids_of_the_text_less_likely() -> None:
    logits = torch.tensor([[2.0, -2.0, 2.0, -math.inf]])
    present = torch.tensor([[True, True, False, True]])
    assert penalise(logits, present, 2.0).tolist() == [[1.0, -4.0, 2.0, -math.inf]]


@pytest.mark.parametrize(
    "setting",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": 1e-40},
        {"repetition_penalty": 1e40},
        {"repetition_penalty": math.nan},
    ],
)
def test_values_outside_their_limits_are_refused(setting) -> None:
    with pytest.raises(UserError, match=f"--{next(iter(setting))} must be"):
        Sampling(**setting)


@pytest.mark.parametrize(
    "setting",
    [{"temperature": None}, {"top_k": 1.5}, {"top_p": "1"}, {"top_k": True}, {"seed": None}],
)
def test_values_of_another_type_are_refused_by_name(setting) -> None:
    with pytest.raises(TypeError, match=f"--{next(iter(setting))} must be a (whole )?number"):
        Sampling(**setting)


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-40, 1e-6])
@pytest.mark.parametrize("settings", [{}, {"top_k": 2}, {"top_p": 0.5}])
def test_hardly_any_temperature_takes_the_most_likely_id(temperature, settings) -> None:
    assert set(drawn([0.3, 0.0, 0.5, 0.2], n=50, temperature=temperature, **settings)) == {2}


def test_the_highest_temperature_draws_evenly_from_what_is_possible() -> None:
    assert set(drawn([0.98, 0.0, 0.01, 0.01], temperature=1e308)) == {0, 2, 3}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("settings", [{"temperature": 0}, {"top_k": 2}, {"top_p": 0.5}, {}])
def test_logits_that_are_not_finite_are_told_of(bad, settings) -> None:
    logits = torch.tensor([[0.0, 1.0, -math.inf], [0.0, bad, 1.0]])
    sampling = Sampling(**settings)
    with pytest.raises(UserError, match="logits are not finite"):
        pick(logits, sampling, [sampling.draws(row) for row in range(2)])
