"""Fixtures that several test modules share."""

import functools
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from workshop import Outcome, Workshop, write_corpus

from lightning_embed import console
from lightning_embed.data.batch import PaddedRows
from lightning_embed.data.windows import cut_windows
from lightning_embed.model.decoder import DecoderLM
from lightning_embed.training.rehearsal import Rehearsal
from lightning_embed.watching import throughput


@pytest.fixture(autouse=True)
def uncut_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that are looked for are not cut; tests of the cutting have a fixture of this name."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(console, "PLAIN", 1000)


@pytest.fixture(autouse=True)
def as_deterministic_as_before() -> Iterator[None]:
    """A run that a test starts by `main` makes torch deterministic for all tests after it."""
    before = torch.are_deterministic_algorithms_enabled()
    yield
    if torch.are_deterministic_algorithms_enabled() != before:
        torch.use_deterministic_algorithms(before)


@pytest.fixture(autouse=True, scope="session")
def quick_runs() -> Iterator[None]:
    """On one thread, which small networks are fastest on and processes of their own have, too; and
    how fast this machine multiplies is measured for the first run, not for hundreds."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(throughput, "matrix_rate", functools.cache(throughput.matrix_rate))
        yield


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A glob of 30 short texts."""
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared tokens, so that each tokenizer is trained once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def workshop(corpus: str, cache: Path, tmp_path: Path) -> Workshop:
    """A corpus and an empty folder for runs."""
    return Workshop(corpus, cache, tmp_path / "runs")


@pytest.fixture(scope="session")
def finished(
    corpus: str, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workshop, Outcome]:
    """A run called `done` of 4 epochs, to look at and not to touch."""
    shop = Workshop(corpus, cache, tmp_path_factory.mktemp("finished"))
    often = ("--trainer.log_every_n_steps", "5", "--padding_guard.every_n_steps", "5")
    often += ("--loss_watch.every_n_steps", "5", "--pages.pictures", "true")
    return shop, shop.fit("done", "--trainer.max_epochs", "4", *often)


@pytest.fixture
def timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--minutes` times one step of each size, for tests that look at what was asked for."""
    seconds = Rehearsal.seconds

    def once(self: Rehearsal, do: Any, batches: Any, at_least: float, fewest: int = 3) -> float:
        return seconds(self, do, batches, 0.0, fewest=1)

    monkeypatch.setattr(Rehearsal, "seconds", once)


@pytest.fixture
def not_nohup() -> Iterator[None]:
    """SIGHUP is not ignored, though the tests themselves may run under nohup."""
    before = signal.signal(signal.SIGHUP, lambda number, frame: None)
    yield
    signal.signal(signal.SIGHUP, before)


def is_plus_zero(row: Tensor) -> bool:
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[row.element_size()]
    return bool((row.detach().contiguous().view(bits) == 0).all())


@pytest.fixture
def plus_zero() -> Callable[[Tensor], bool]:
    """Whether a tensor is bitwise +0; `== 0` would also accept -0."""
    return is_plus_zero


@pytest.fixture
def tiny_lm() -> Callable[..., DecoderLM]:
    """Builds a small `DecoderLM` with every matrix random: as initialised, its residual branches
    are zero, and a model without branches passes most tests whatever attention does."""

    def build(dtype: torch.dtype = torch.float64, seed: int = 0, **settings: Any) -> DecoderLM:
        torch.manual_seed(seed)
        sizes = {"vocab_size": 23, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 24}
        model = DecoderLM(**(sizes | settings))
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
            elif isinstance(module, nn.RMSNorm):
                nn.init.uniform_(module.weight, 0.5, 1.5)
        return model.to(dtype).eval()

    return build


@pytest.fixture
def make_rows() -> Callable[..., PaddedRows]:
    """Builds `PaddedRows` over made-up documents of the given lengths (tokens, ends included)."""

    def build(
        lengths: list[int], max_length: int = 8, overlap: int = 0, vocab_size: int = 10_000
    ) -> PaddedRows:
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return PaddedRows(
            (np.arange(offsets[-1]) % 5_000 + 4).astype(np.uint16),  # tells positions apart
            cut_windows(offsets, max_length, overlap),
            group=np.arange(len(lengths)) % 3,
            n_bytes=np.array([7 * n + 1 for n in lengths]),
            offsets=offsets,
            vocab_size=vocab_size,
        )

    return build
