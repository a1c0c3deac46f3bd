"""Generation: batched prompts give what each would alone, and the drawing rules hold."""

import math
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from lightning_embed.special_tokens import EOS_ID, PAD_ID
from lightning_embed.training.generate import generate_ids

PROMPTS = [[0, 5], [0, 9, 3, 17, 4, 8], [0], [0, 22, 22, 7]]
PLAIN = {"max_new_tokens": 12, "max_length": 32, "eos_id": EOS_ID}


class Fixed(nn.Module):
    """A stand-in for the model that always has the same probabilities for the next id."""

    def __init__(self, probabilities: list[float]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(probabilities), 1)
        self.probabilities = torch.tensor(probabilities)

    def hidden(self, ids: Tensor) -> Tensor:
        return torch.zeros(*ids.shape, 1)

    def logits(self, hidden: Tensor) -> Tensor:
        return self.probabilities.log().expand(*hidden.shape[:-1], -1)


def drawn(probabilities: list[float], n: int = 2000, **settings) -> dict[int, float]:
    """How often each id was drawn."""
    model = Fixed(probabilities)
    options = {"max_new_tokens": 1, "max_length": 8, "eos_id": -1, "temperature": 1.0}
    ids = generate_ids(model, [[0]] * n, **(options | {"top_k": None} | settings))
    return {i: c / n for i, c in sorted(Counter(row[0] for row in ids).items())}


def greedy_alone(model: nn.Module, prompt: list[int], steps: int, eos_id: int) -> list[int]:
    """The plain way: no batch, no padding, the whole text again for each token."""
    row = list(prompt)
    for _ in range(steps):
        row.append(int(model(torch.tensor([row]))[0, -1].argmax()))
        if row[-1] == eos_id:
            return row[len(prompt) : -1]
    return row[len(prompt) :]


@pytest.mark.parametrize("seed", range(3))
def test_greedy_in_a_batch_is_greedy_alone(tiny_lm, seed) -> None:
    model = tiny_lm(seed=seed)
    together = generate_ids(model, PROMPTS, temperature=0, **PLAIN)
    assert together == [greedy_alone(model, prompt, 12, EOS_ID) for prompt in PROMPTS]
    assert max(map(len, together)) == 12


def test_rows_that_end_early_leave_their_neighbours_alone(tiny_lm) -> None:
    model = tiny_lm()
    eos_id = greedy_alone(model, PROMPTS[1], 12, EOS_ID)[3]  # an end that some rows will meet
    together = generate_ids(model, PROMPTS, temperature=0, **PLAIN | {"eos_id": eos_id})
    assert together == [greedy_alone(model, prompt, 12, eos_id) for prompt in PROMPTS]
    assert len(set(map(len, together))) > 1


def test_padding_is_never_drawn_nor_the_end_token_returned(tiny_lm) -> None:
    model = tiny_lm()
    settings = PLAIN | {"max_new_tokens": 30}
    rows = generate_ids(model, [[0]] * 50, temperature=5.0, top_k=None, **settings)
    seen = {token for row in rows for token in row}
    assert PAD_ID not in seen and EOS_ID not in seen
    assert seen == set(range(23)) - {PAD_ID, EOS_ID}  # at this heat everything else comes


@pytest.mark.parametrize("settings", [{"top_k": 1}, {"top_p": 1e-9, "top_k": None}])
def test_narrowest_choice_is_greedy(tiny_lm, settings) -> None:
    model = tiny_lm()
    greedy = generate_ids(model, PROMPTS, temperature=0, **PLAIN)
    assert generate_ids(model, PROMPTS, temperature=1.5, **settings, **PLAIN) == greedy


def test_draws_follow_the_probabilities() -> None:
    found = drawn([0.5, 0.0, 0.3, 0.2])
    assert set(found) == {0, 2, 3}
    for token, share in ((0, 0.5), (2, 0.3), (3, 0.2)):  # four standard deviations
        assert found[token] == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 2000))


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"top_k": 2}, {0, 2}),
        ({"top_k": 50}, {0, 2, 3, 4}),  # more than there are
        ({"top_p": 0.45}, {0}),
        ({"top_p": 0.55}, {0, 2}),  # the id that reaches the share stays in
        ({"top_p": 0.85}, {0, 2, 3}),
        ({"top_k": 3, "top_p": 0.95}, {0, 2, 3}),
    ],
)
def test_top_k_and_top_p_keep_the_most_likely(settings, kept) -> None:
    assert set(drawn([0.5, 0.0, 0.3, 0.15, 0.05], **settings)) == kept


def test_low_temperature_sharpens_and_high_flattens() -> None:
    cold, warm, hot = (drawn([0.7, 0.3], temperature=t)[0] for t in (0.3, 1.0, 10.0))
    assert cold > warm > hot
    expected = 0.7 ** (1 / 0.3) / (0.7 ** (1 / 0.3) + 0.3 ** (1 / 0.3))
    assert cold == pytest.approx(expected, abs=0.03)


def test_seed_makes_draws_reproducible(tiny_lm) -> None:
    model = tiny_lm()
    one, two, other = (
        generate_ids(model, PROMPTS, temperature=1.0, seed=seed, **PLAIN) for seed in (1, 1, 2)
    )
    assert one == two != other


def test_global_generator_is_neither_used_nor_moved(tiny_lm) -> None:
    """Samples at validation must not change the training that follows."""
    model = tiny_lm()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    generate_ids(model, PROMPTS, **PLAIN)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("training", [True, False])
def test_mode_is_given_back_and_dropout_is_off(tiny_lm, training) -> None:
    model = tiny_lm(dropout=0.5).train(training)
    one, two = (generate_ids(model, PROMPTS, temperature=0, **PLAIN) for _ in range(2))
    assert one == two
    assert model.training is training


def test_stops_at_the_end_token() -> None:
    always_ends = Fixed([0.0, 0.0, 1.0])
    assert generate_ids(always_ends, [[0], [0, 0]], temperature=0, **PLAIN) == [[], []]


def test_length_is_limited() -> None:
    never_ends = Fixed([0.0, 0.0, 0.0, 1.0])
    assert generate_ids(never_ends, [[0]], temperature=0, **PLAIN) == [[3] * 12]


def test_of_a_long_text_the_last_positions_are_shown(tiny_lm) -> None:
    model, long = tiny_lm(), [0, *range(3, 20)]
    settings = PLAIN | {"max_length": 6, "max_new_tokens": 1}
    tail = generate_ids(model, [long[-6:]], temperature=0, **settings)
    head = generate_ids(model, [long[:6]], temperature=0, **settings)
    # Beside a short prompt as well: rows are cut before they are padded.
    assert generate_ids(model, [long, [0, 5]], temperature=0, **settings)[0] == tail[0] != head[0]


def test_never_shows_more_than_the_model_was_trained_with() -> None:
    model, widths = Fixed([0.0, 0.0, 0.0, 1.0]), []
    hidden = model.hidden
    model.hidden = lambda ids: (widths.append(ids.shape[1]), hidden(ids))[1]
    settings = PLAIN | {"max_length": 4, "max_new_tokens": 6}
    (new,) = generate_ids(model, [[0, 0]], temperature=0, **settings)
    assert len(new) == 6
    assert widths == [2, 3, 4, 4, 4, 4]
