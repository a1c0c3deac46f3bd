"""`--model.freeze`: parts of a network that training leaves as they are."""

from collections.abc import Callable

import pytest
import torch
from workshop import Workshop, load, padding_is_zero

from lightning_embed import LanguageModel
from lightning_embed.errors import UserError
from lightning_embed.model.decoder import DecoderLM
from lightning_embed.training.freezing import freeze, parts_of


def frozen(network: DecoderLM) -> set[str]:
    return {name for name, p in network.named_parameters() if not p.requires_grad}


def test_each_part_by_its_name(tiny_lm: Callable[..., DecoderLM]) -> None:
    network = tiny_lm(tied=False)
    assert list(parts_of(network)) == [
        "embedding",
        "blocks",
        "head",
        "norms",
        "blocks.0",
        "blocks.1",
    ]
    freeze(network, "embedding")
    assert frozen(network) == {"embedding.weight"}
    freeze(network, ["head"])
    assert frozen(network) == {"embedding.weight", "head.weight"}
    network = tiny_lm()
    freeze(network, ["blocks.1", "norms"])
    assert all(name.startswith("blocks.1.") or "norm" in name for name in frozen(network))
    assert {"norm.weight", "blocks.0.attention.q_norm.weight"} <= frozen(network)
    assert "blocks.1.feed_forward.up_proj.weight" in frozen(network)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ("embeddings", "no part of this network; there are embedding, blocks, norms, and blocks.0"),
        ("blocks.4", "and blocks.0 to blocks.3"),
        ("head", "the head is the embedding"),
        (["embedding", "blocks", "norms"], "leaves nothing to train"),
    ],
)
def test_unknown_parts_are_refused_before_anything_is_built(
    parts: str | list[str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        LanguageModel(d_model=16, n_heads=2, freeze=parts)


def test_frozen_parts_stay_bit_by_bit_and_a_resume_keeps_them(workshop: Workshop) -> None:
    shape = ("--model.weight_decay", "0.5", "--model.freeze", "embedding", "blocks.0")
    workshop.fit("cold", *shape, "--model.schedule_steps", "12", steps=6)
    first = load(workshop.checkpoint("cold"))
    assert first["hyper_parameters"]["freeze"] == ["embedding", "blocks.0"]
    folder = workshop.root / "cold"
    config = ("--config", folder / "config.yaml", "--ckpt_path", folder)
    other = workshop.run("fit", *config, "--model.freeze", "embedding")
    assert "--model.freeze is" in other.error_line()
    workshop.fit("cold", *config, steps=12)
    last = load(workshop.checkpoint("cold"))
    assert last["global_step"] == 12
    moved = {
        name
        for name, tensor in last["state_dict"].items()
        if not torch.equal(tensor, first["state_dict"][name])
    }
    assert moved and not any("embedding" in name or "blocks.0" in name for name in moved)
    assert {name for name in last["state_dict"] if "blocks.1" in name} <= moved
    assert padding_is_zero(workshop.checkpoint("cold"))
    assert all(len(group["params"]) for group in last["optimizer_states"][0]["param_groups"])


def test_all_blocks_may_be_frozen(workshop: Workshop) -> None:
    """Muon has no matrix then."""
    told = workshop.fit("head", "--model.freeze", "blocks", steps=3)
    rows = 400 * 32  # the embedding, which is the head; the last norm
    assert told.line("frozen").startswith(f"blocks; {rows + 32:,} of ")
    assert "own text" not in told.out  # it was named on the command line
    assert "row zero" in told.line("padding")
