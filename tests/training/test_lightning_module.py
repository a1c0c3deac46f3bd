"""`LanguageModel`: whether a run is compiled."""

from types import SimpleNamespace

import pytest
import torch

from lightning_embed import LanguageModel
from lightning_embed.model import compiling
from lightning_embed.training import lightning_module


def test_whether_compiling_pays_follows_from_the_planned_work_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """10 steps of 1,000 tokens pay, 9 do not; told to compile, or not to, nothing is reckoned."""
    monkeypatch.setattr(lightning_module, "why_not_compile", lambda device: None)
    model = LanguageModel(vocab_size=100, d_model=32, n_heads=2, n_layers=1)
    data = SimpleNamespace(targets_per_step=1000.0, max_length=10)
    trainer = SimpleNamespace(max_steps=10, max_epochs=None, world_size=1, datamodule=data)
    model._trainer = trainer  # type: ignore[assignment]
    flops = model.network.training_flops(10_000, 50_000)
    monkeypatch.setattr(compiling, "PAYS_FROM", 0.999 * flops / torch.get_num_threads())
    assert model.why_eager() is None
    trainer.max_steps = 9
    assert (model.why_eager() or "").startswith("9 steps are over before compiling pays")
    trainer.max_steps, trainer.world_size = 10, 2
    assert model.why_eager() is not None  # each process compiles, and does half of the work
    model.hparams["compile"] = True
    assert model.why_eager() is None
    model.hparams["compile"] = False
    assert model.why_eager() == "model.compile is false"
