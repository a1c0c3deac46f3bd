"""Checkpoints in shards: whole or not there, without code, for any number of processes."""

import io
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from workshop import (
    ROOT,
    Harm,
    Workshop,
    assert_same_weights,
    load,
    padding_is_zero,
    run,
    run_apart,
)

from lightning_embed import LanguageModel
from lightning_embed.checkpointing.files import is_whole, read_checkpoint, read_header
from lightning_embed.checkpointing.shards import MARK, META, mark_whole, read_whole

FSDP = ("--config", ROOT / "configs" / "fsdp.yaml")
ADAMW = ("--model.optimizer", "adamw", "--model.schedule", "constant")
LAST = ("--ckpt_path", "last")


@pytest.fixture(scope="module")
def shop(corpus: str, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A run called `shards` of two processes, 6 steps long."""
    shop = Workshop(corpus, cache, tmp_path_factory.mktemp("shards"))
    sharded(shop, "shards", 6)
    return shop


def sharded(shop: Workshop, name: str, steps: int, *more: str | Path) -> None:
    options = (*ADAMW, *FSDP, "--checkpoints.every_n_steps", "2", *more)
    told = run_apart(
        *shop.arguments("fit", "--name", name, *options, "--trainer.max_steps", str(steps))
    )
    assert told.status == 0, told.out + told.err
    assert told.err == ""


@pytest.fixture
def folder(shop: Workshop, tmp_path: Path) -> Path:
    """A copy of its last checkpoint, to be damaged."""
    copy = tmp_path / "copy.ckpt"
    shutil.copytree(shop.checkpoint("shards"), copy)
    return copy


def test_a_run_keeps_marked_folders_and_nothing_half_written(shop: Workshop) -> None:
    checkpoints = shop.root / "shards" / "checkpoints"
    names = {path.name for path in checkpoints.iterdir()}
    assert names == {"last.ckpt", "previous.ckpt", "best.ckpt"}
    for path in checkpoints.iterdir():
        assert is_whole(path) and (path / MARK).is_file()
        assert len(list(path.glob("*.distcp"))) == 2  # a part of each process
    steps = {path.name: read_header(path)["global_step"] for path in checkpoints.iterdir()}
    assert (steps["last.ckpt"], steps["previous.ckpt"]) == (6, 4)


def test_one_process_goes_on_and_two_go_on_from_its_file(shop: Workshop) -> None:
    """Ordinary files and folders of shards are continued by either, with the same training; two
    processes can write an ordinary file too."""
    shop.fit("alone", *ADAMW, steps=14)
    shutil.copytree(shop.root / "shards", shop.root / "changing")
    told = shop.fit("changing", *ADAMW, *LAST, steps=10)
    assert "trainer.strategy FSDP2Strategy -> auto, applied from here on" in told.out
    assert shop.checkpoint("changing").is_file()
    gathered = ("--trainer.strategy.init_args.save_distributed_checkpoint", "false")
    sharded(shop, "changing", 14, *gathered, *LAST)
    assert shop.checkpoint("changing").is_file() and padding_is_zero(shop.checkpoint("changing"))
    assert_same_weights(shop.checkpoint("changing"), shop.checkpoint("alone"), tolerance=5e-5)


def test_consolidated_shards_are_an_ordinary_file(shop: Workshop, tmp_path: Path) -> None:
    source, target = shop.checkpoint("shards"), tmp_path / "whole.ckpt"
    told = run("consolidate", "--checkpoint", source, "--output", target)
    assert told.status == 0, told.err
    assert str(target) in told.line("saved")
    assert padding_is_zero(target)
    assert load(target)["global_step"] == 6
    whole = read_whole(source)
    assert all(
        torch.equal(v, whole["state_dict"][k]) for k, v in load(target)["state_dict"].items()
    )
    for path in (source, target):  # and both can be used
        model = LanguageModel.load_from_checkpoint(path).eval()
        assert torch.isfinite(model(torch.tensor([[0, 5]]))[..., 2:]).all()
        assert run("generate", "--checkpoint", path, "--max_new_tokens", "3").status == 0
    told = shop.run("validate", *ADAMW, "--ckpt_path", source)
    assert told.status == 0, told.err
    again = run("consolidate", "--checkpoint", source, "--output", target)
    assert "is there already" in again.error_line()


# -- damage ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata", META])
def test_a_flipped_bit_is_seen(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    assert not is_whole(folder)


@pytest.mark.parametrize("name", ["__1_0.distcp", ".metadata", META, MARK])
def test_a_missing_file_is_seen(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert not is_whole(folder)


def test_a_damaged_newest_folder_is_named_and_the_one_before_serves(shop: Workshop) -> None:
    shutil.copytree(shop.root / "shards", shop.root / "damaged")
    (shop.checkpoint("damaged") / "__1_0.distcp").write_bytes(b"")
    shutil.rmtree(shop.checkpoint("damaged", "best"))
    told = shop.fit("damaged", *ADAMW, *LAST, steps=7)
    assert "last.ckpt is damaged" in told.line("warning")
    assert "previous.ckpt: step 4" in told.line("resume")


# -- code ------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["metadata", "meta", "value"])
@pytest.mark.parametrize("command", ["fit", "validate", "generate", "consolidate"])
def test_code_in_any_part_is_refused_and_not_run(
    shop: Workshop, folder: Path, tmp_path: Path, place: str, command: str
) -> None:
    trace = tmp_path / "trace"
    if place == "metadata":
        (folder / ".metadata").write_bytes(pickle.dumps(Harm(trace)))
    elif place == "meta":
        torch.save(torch.load(folder / META, weights_only=True) | {"x": Harm(trace)}, folder / META)
    else:
        meta = (folder / META).read_bytes()
        shutil.rmtree(folder)
        dcp.save({"state_dict": {"x": torch.ones(2), "y": Harm(trace)}}, checkpoint_id=folder)
        (folder / META).write_bytes(meta)
    mark_whole(folder)
    if command == "generate":
        told = run("generate", "--checkpoint", folder)
    elif command == "consolidate":
        told = run("consolidate", "--checkpoint", folder, "--output", tmp_path / "out.ckpt")
    else:
        told = shop.run(command, *ADAMW, "--ckpt_path", folder, "--name", "other")
    assert str(folder) in told.error_line()
    assert not trace.exists()


def test_only_plain_values_pass(folder: Path) -> None:
    assert read_checkpoint(folder)["optimizer_states"]
    (folder / META).write_bytes(io.BytesIO(b"not a checkpoint").getvalue())
    mark_whole(folder)
    with pytest.raises(ValueError, match="could run a program"):
        read_checkpoint(folder)
