"""Generation: rows in a batch, with a cache, give what each would alone without one."""

import pytest
import torch
from torch import nn

from lightning_embed.inference.generate import new_ids
from lightning_embed.inference.sampling import Sampling
from lightning_embed.special_tokens import EOS_ID, PAD_ID
from lightning_embed.watching.meters import graphs_compiled

PROMPTS = [[0, 5], [0, 9, 3, 17, 4, 8], [0], [0, 22, 22, 7]]
GREEDY = Sampling(temperature=0)


def rows_of(model, prompts, sampling=GREEDY, **settings) -> list[list[int]]:
    """Each row's new ids, without its end token."""
    plain = {"max_new_tokens": 12, "max_length": 32, "eos_id": EOS_ID, "ended": set()}
    rows = [[] for _ in prompts]
    options = plain | settings
    for row, new in new_ids(model, prompts, sampling, **options):
        if new != options["eos_id"]:
            rows[row].append(new)
    return rows


@torch.no_grad()
def greedy_alone(
    model: nn.Module, prompt: list[int], steps: int = 12, eos_id: int = EOS_ID, window: int = 32
) -> list[int]:
    """The plain way: no batch, no cache, the whole text again for each token; a text as long as a
    window goes on with the last half of it."""
    shown, new = prompt[-window:], []
    for _ in range(steps):
        shown = shown[-(window // 2) - 1 :] if len(shown) > window else shown
        new.append(int(model(torch.tensor([shown]))[0, -1].argmax()))
        shown = [*shown, new[-1]]
        if new[-1] == eos_id:
            return new[:-1]
    return new


@pytest.mark.parametrize("settings", [{}, {"tied": False, "n_heads": 4, "n_kv_heads": 2}])
@pytest.mark.parametrize("seed", range(3))
def test_greedy_in_a_batch_is_greedy_alone(tiny_lm, seed, settings) -> None:
    model = tiny_lm(seed=seed, **settings)
    together = rows_of(model, PROMPTS)
    assert together == [greedy_alone(model, prompt) for prompt in PROMPTS]
    assert max(map(len, together)) == 12


@pytest.mark.parametrize("window", [2, 7, 8])
def test_beyond_a_window_its_last_half_is_read_anew(tiny_lm, window) -> None:
    """Rows reach the end of their windows at different times."""
    model, settings = tiny_lm(), {"max_new_tokens": 40, "eos_id": -1, "max_length": window}
    prompts = [*PROMPTS, [0, *range(3, 20)]]  # one longer than a window
    together = rows_of(model, prompts, **settings)
    assert together == [greedy_alone(model, p, 40, -1, window) for p in prompts]


def test_rows_that_end_early_leave_their_neighbours_alone(tiny_lm) -> None:
    model = tiny_lm()
    eos_id = greedy_alone(model, PROMPTS[1])[3]  # an end that some rows will meet
    together = rows_of(model, PROMPTS, eos_id=eos_id)
    assert together == [greedy_alone(model, prompt, eos_id=eos_id) for prompt in PROMPTS]
    assert len(set(map(len, together))) > 1


def test_the_caller_may_end_rows(tiny_lm) -> None:
    model, ended = tiny_lm(), {2}
    rows = [[] for _ in PROMPTS]
    settings = {"max_new_tokens": 12, "max_length": 32, "eos_id": -1}
    ids = new_ids(model, PROMPTS, GREEDY, ended=ended, **settings)
    for count, (row, new) in enumerate(ids):
        rows[row].append(new)
        if count == 6:
            ended.add(1)
    alone = [greedy_alone(model, prompt, eos_id=-1) for prompt in PROMPTS]
    assert rows == [alone[0], alone[1][:3], [], alone[3]]


def test_padding_is_never_drawn(tiny_lm) -> None:
    hot = Sampling(temperature=5.0, top_k=None)
    rows = rows_of(tiny_lm(), [[0], [0, 5, 6]] * 25, hot, max_new_tokens=30, eos_id=-1)
    assert {token for row in rows for token in row} == set(range(23)) - {PAD_ID}


@pytest.mark.parametrize("settings", [{"top_k": 1}, {"top_p": 1e-9, "top_k": None}])
def test_narrowest_choice_is_greedy(tiny_lm, settings) -> None:
    model = tiny_lm()
    narrow = Sampling(temperature=1.5, **settings)
    assert rows_of(model, PROMPTS, narrow) == rows_of(model, PROMPTS)


def test_a_seed_gives_the_same_whatever_rows_are_beside(tiny_lm) -> None:
    model = tiny_lm()
    one, two, other = (rows_of(model, PROMPTS, Sampling(1.0, seed=seed)) for seed in (1, 1, 2))
    assert one == two != other
    alone = [
        rows_of(model, [prompt], Sampling(1.0, seed=1), numbers=[number])[0]
        for number, prompt in enumerate(PROMPTS)
    ]
    assert one == alone


def test_a_high_penalty_repeats_nothing(tiny_lm) -> None:
    strict = Sampling(temperature=0, repetition_penalty=1e9)
    for prompt, row in zip(PROMPTS, rows_of(tiny_lm(), PROMPTS, strict, eos_id=-1), strict=True):
        assert len(set(row)) == 12 and not set(row) & set(prompt)


def test_global_generator_is_neither_used_nor_moved(tiny_lm) -> None:
    """Samples at validation must not change the training that follows."""
    model = tiny_lm()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    rows_of(model, PROMPTS, Sampling())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("training", [True, False])
def test_mode_is_given_back_and_dropout_is_off(tiny_lm, training) -> None:
    model = tiny_lm(dropout=0.5).train(training)
    assert rows_of(model, PROMPTS) == rows_of(model, PROMPTS)
    assert model.training is training


def test_a_compiled_network_generates_by_no_graph_of_its_own(tiny_lm) -> None:
    """Samples in the middle of a run must not wait for a compiler."""
    model = tiny_lm()
    eager, before = rows_of(model, PROMPTS), graphs_compiled()
    model.compile_parts()
    assert rows_of(model, PROMPTS) == eager
    assert graphs_compiled() == before
