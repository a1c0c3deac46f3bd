"""What a worker process is sent: paths and its own micro-batches, nothing that grows."""

import multiprocessing
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_embed.data.batch import Filler, PaddedRows
from lightning_embed.data.loader import PlanLoader
from lightning_embed.data.plan import BatchSettings
from lightning_embed.data.windows import cut_windows
from lightning_embed.errors import UserError
from lightning_embed.tokens.token_files import Split

SETTINGS = BatchSettings(tokens=256, widths=(8, 16, 32))
SMALL = 2_000  # bytes


def write_split(folder: Path, documents: int) -> Split:
    """Made-up documents, mapped into memory."""
    lengths = np.random.default_rng(0).integers(2, 80, documents)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    folder.mkdir()
    (np.arange(offsets[-1]) % 5_000 + 4).astype(np.uint16).tofile(folder / "tokens.bin")
    np.save(folder / "offsets.npy", offsets)
    np.save(folder / "n_bytes.npy", 4 * lengths)
    np.save(folder / "source.npy", np.arange(documents) % 3)
    return Split.open(folder, np.uint16)


def rows_of(split: Split) -> PaddedRows:
    windows = cut_windows(split.offsets, 32)
    return PaddedRows(split.tokens, windows, split.source, split.n_bytes, split.offsets, 10_000)


def loader_of(split: Split, workers: int = 0) -> PlanLoader:
    return PlanLoader(rows_of(split), SETTINGS, seed=1, shuffle=True, num_workers=workers)


@pytest.fixture(params=["forkserver", pytest.param("spawn", marks=pytest.mark.slow)])
def started_anew(request: pytest.FixtureRequest) -> Iterator[None]:
    """Worker processes get what they need pickled, as they do by default from Python 3.14 on."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(request.param, force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # torch counts the cores
def test_workers_that_map_the_tokens_themselves_give_the_same_batches(
    tmp_path: Path, started_anew: None
) -> None:
    split = write_split(tmp_path / "train", 60)
    alone, helped = list(loader_of(split)), list(loader_of(split, workers=2))
    assert len(alone) == len(helped) > 5
    for one, other in zip(alone, helped, strict=True):
        for mine, theirs in zip(one, other, strict=True):
            if isinstance(mine, torch.Tensor):
                assert torch.equal(mine, theirs)
    ours, sent = alone[0].segments, helped[0].segments
    assert ours is not None and sent is not None and torch.equal(ours.start, sent.start)


@pytest.mark.parametrize("documents", [50, 5_000])
def test_what_a_worker_is_sent_does_not_grow_with_the_corpus(
    tmp_path: Path, documents: int
) -> None:
    split = write_split(tmp_path / "train", documents)
    loader = loader_of(split)
    assert len(pickle.dumps(loader.rows.filler)) < SMALL
    assert len(pickle.dumps(split)) < SMALL
    for micro in loader.micro_batches():
        assert len(pickle.dumps(loader.rows.share(micro))) < SMALL + 60 * len(micro.windows)


def test_a_split_comes_back_from_its_path(tmp_path: Path) -> None:
    split = write_split(tmp_path / "train", 50)
    again = pickle.loads(pickle.dumps(split))
    for name in ("tokens", "offsets", "n_bytes", "source"):
        assert np.array_equal(getattr(again, name), getattr(split, name))
    assert again.text_file == split.text_file


def test_tokens_in_memory_or_a_part_of_a_file_are_sent_as_they_are(tmp_path: Path) -> None:
    split = write_split(tmp_path / "train", 50)
    for tokens in (np.array(split.tokens), split.tokens[10:60]):
        sent = pickle.loads(pickle.dumps(Filler(tokens, 10_000)))
        assert np.array_equal(sent.tokens, tokens)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_tokens_that_a_worker_does_not_find_are_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = write_split(tmp_path / "train", 50)
    loader = loader_of(split, workers=1)
    loader.rows.filler = pickle.loads(pickle.dumps(loader.rows.filler))  # as in another process
    (tmp_path / "train" / "tokens.bin").unlink()
    with pytest.raises(UserError) as told:
        list(loader)
    assert str(told.value).startswith(str(tmp_path)) and "--ckpt_path last" in str(told.value)
    assert "Traceback" not in str(told.value)
