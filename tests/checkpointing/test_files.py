"""Checkpoint files are whole or not there, and damage is seen."""

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from workshop import Harm

from lightning_embed import LanguageModel
from lightning_embed.checkpointing.compatibility import FORMAT, FORMAT_KEY
from lightning_embed.checkpointing.files import is_whole, read_checkpoint
from lightning_embed.checkpointing.lightning_io import AtomicCheckpointIO
from lightning_embed.errors import UserError

STATE = {"weight": torch.arange(1000, dtype=torch.float32), "step": 7, "name": "words"}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(STATE, path)
    return path


def test_round_trip_with_plain_torch_and_nothing_left_beside(saved) -> None:
    loaded = torch.load(saved, weights_only=True)
    assert torch.equal(loaded["weight"], STATE["weight"]) and loaded["step"] == 7
    assert [p.name for p in saved.parent.iterdir()] == ["last.ckpt"]
    assert is_whole(saved)


def test_makes_the_folder_and_takes_a_string(tmp_path) -> None:
    AtomicCheckpointIO().save_checkpoint(STATE, str(tmp_path / "a" / "b" / "last.ckpt"))
    assert is_whole(tmp_path / "a" / "b" / "last.ckpt")


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["torch.save", "os.fsync", "os.replace"])
def test_the_old_file_survives_a_failed_save(saved, monkeypatch, error, where) -> None:
    before = saved.read_bytes()

    def fails(*args: object, **kwargs: object) -> None:
        if where == "torch.save":
            args[1].write(b"half of it")  # the disk fills up in the middle
        raise error

    monkeypatch.setattr(where, fails)
    with pytest.raises(type(error)):
        AtomicCheckpointIO().save_checkpoint({"step": 8}, saved)
    monkeypatch.undo()
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == ["last.ckpt"]


def test_something_that_cannot_be_saved_leaves_nothing(tmp_path) -> None:
    with pytest.raises(Exception, match="pickle"):
        AtomicCheckpointIO().save_checkpoint({"f": lambda: 0}, tmp_path / "last.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_replaces_an_older_file(saved) -> None:
    AtomicCheckpointIO().save_checkpoint({"step": 8}, saved)
    assert torch.load(saved, weights_only=True) == {"step": 8}


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_not_whole(saved, share) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * share)])
    assert not is_whole(saved)


def test_a_flipped_bit_in_a_tensor_is_seen_though_torch_loads_it(saved) -> None:
    content = bytearray(saved.read_bytes())
    place = content.index(torch.tensor([500.0, 501.0]).numpy().tobytes())
    content[place] ^= 1
    saved.write_bytes(content)
    loaded = torch.load(saved, weights_only=True)["weight"]
    assert not torch.equal(loaded, STATE["weight"])  # silently wrong: why is_whole exists
    assert not is_whole(saved)


def test_damage_anywhere_never_raises_and_never_loads(saved) -> None:
    """Finding the newest whole checkpoint goes through damaged ones."""
    content = saved.read_bytes()
    places = range(0, len(content), 7)
    missed = 0
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        saved.write_bytes(damaged)
        if not is_whole(saved):
            continue
        missed += 1
        try:
            loaded = torch.load(saved, weights_only=True)
        except Exception:  # the list of records at the end: torch itself refuses
            continue
        assert torch.equal(loaded.pop("weight"), STATE["weight"])  # padding between records
        assert loaded == {"step": 7, "name": "words"}
    assert missed < len(places) / 5


def test_other_things_are_not_whole_checkpoints(tmp_path) -> None:
    text = tmp_path / "notes.ckpt"
    text.write_text("not a checkpoint")
    for path in (text, tmp_path, tmp_path / "missing.ckpt"):
        assert not is_whole(path)


# -- loading for use elsewhere ---------------------------------------------------------------


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a model without a run."""
    model = LanguageModel(vocab_size=40, max_length=8, d_model=8, n_layers=1, n_heads=1)
    path = tmp_path_factory.mktemp("model") / "model.ckpt"
    content = {
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
        "pytorch-lightning_version": "2.6.6",
        FORMAT_KEY: FORMAT,
    }
    AtomicCheckpointIO().save_checkpoint(content, path)
    return path


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a server of this machine for the files in `tmp_path`."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.func.log_message = lambda *args: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("form", ["path", "str", "file", "url"])
@pytest.mark.parametrize("damaged", [False, True])
def test_whatever_a_checkpoint_is_given_as_its_checksums_are_verified(
    model_file: Path, tmp_path: Path, served: str, form: str, damaged: bool
) -> None:
    content = bytearray(model_file.read_bytes())
    if damaged:
        weight = torch.load(model_file, weights_only=True)["state_dict"]["model.embedding.weight"]
        content[content.index(weight[5:7].numpy().tobytes())] ^= 1
    path = tmp_path / "copy.ckpt"
    path.write_bytes(content)
    given = {"path": path, "str": str(path), "url": f"{served}/copy.ckpt"}.get(form)
    with open(path, "rb") as opened:
        if damaged:
            with pytest.raises(ValueError, match="damaged"):
                LanguageModel.load_from_checkpoint(given or opened)
        else:
            model = LanguageModel.load_from_checkpoint(given or opened)
            assert model.network.embedding.weight.shape == (40, 8)


@pytest.mark.parametrize("form", ["path", "url"])
@pytest.mark.parametrize("force", [False, True])
def test_code_is_not_run_whatever_the_caller_or_the_environment_says(
    tmp_path: Path, served: str, monkeypatch: pytest.MonkeyPatch, form: str, force: bool
) -> None:
    trace, path = tmp_path / "trace", tmp_path / "evil.ckpt"
    torch.save({"state_dict": {}, "hyper_parameters": {}, "x": Harm(trace)}, path)
    if force:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    given = path if form == "path" else f"{served}/evil.ckpt"
    with pytest.raises(UserError, match="could run a program"):
        LanguageModel.load_from_checkpoint(given, weights_only=False)
    with pytest.raises(ValueError, match="could run a program"):
        read_checkpoint(path)
    assert not trace.exists()
