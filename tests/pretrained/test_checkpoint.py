"""Reading what `fit` wrote: the same network as Lightning loads, or one line that says why not."""

import pytest
import torch

from lightning_embed import LanguageModel, load
from lightning_embed.errors import UserError
from lightning_embed.pretrained.checkpoint import read_trained


def test_the_network_is_the_one_that_was_trained(finished, plus_zero) -> None:
    shop, _ = finished
    best = shop.checkpoint("done", "best")
    found = read_trained(str(shop.root / "done"))
    theirs = LanguageModel.load_from_checkpoint(shop.root / "done").network  # its best, too
    assert theirs.state_dict().keys() == found.network.state_dict().keys()
    for name, weight in theirs.state_dict().items():
        assert torch.equal(weight.cpu(), found.network.state_dict()[name]), name
    assert plus_zero(found.network.embedding.weight[1])
    assert not found.network.training and found.network.embedding.weight.requires_grad
    assert found.max_length == 32 and found.settings["d_model"] == 32
    assert found.tokenizer.vocab_size == found.network.embedding.num_embeddings
    assert found.about["path"] == str(best) and found.about["steps"] > 0


def test_another_number_format_becomes_float32(finished, tmp_path) -> None:
    shop, _ = finished
    checkpoint = torch.load(shop.checkpoint("done"), weights_only=True)
    weights = {name: x.bfloat16() for name, x in checkpoint["state_dict"].items()}
    torch.save(checkpoint | {"state_dict": weights}, tmp_path / "half.ckpt")
    found = read_trained(str(tmp_path / "half.ckpt"))
    for name, weight in found.network.state_dict().items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, weights[f"model.{name}"].float())


def test_the_draws_of_others_are_left_alone(finished) -> None:
    shop, _ = finished
    before = torch.get_rng_state()
    read_trained(str(shop.checkpoint("done")))
    assert torch.equal(torch.get_rng_state(), before)


def test_folders_of_something_else_are_named(finished, tmp_path) -> None:
    shop, _ = finished
    (tmp_path / "notes").mkdir()
    with pytest.raises(UserError, match="notes is a folder without a checkpoint; give"):
        load(tmp_path / "notes")
    (tmp_path / "notes" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"notes is a Hugging Face folder.* test with --against"):
        read_trained(str(tmp_path / "notes"))
    with pytest.raises(UserError, match=r"\(its runs have one: .*done\)"):
        load(shop.root)
    with pytest.raises(UserError, match="no checkpoint at"):
        load(tmp_path / "absent")


def test_weights_of_another_shape_are_refused(finished, tmp_path) -> None:
    shop, _ = finished
    checkpoint = torch.load(shop.checkpoint("done"), weights_only=True)
    checkpoint["hyper_parameters"]["d_model"] = 64
    torch.save(checkpoint, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="does not fit this model"):
        load(tmp_path / "other.ckpt")


def test_a_checkpoint_of_another_program_is_refused(finished, tmp_path) -> None:
    shop, _ = finished
    checkpoint = torch.load(shop.checkpoint("done"), weights_only=True)
    checkpoint["hyper_parameters"] = {"hidden_size": 32}
    torch.save(checkpoint, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="not a checkpoint that fit wrote"):
        load(tmp_path / "other.ckpt")
