"""`LanguageModel`: its settings, which are also those of `DecoderLM`; whether a run is compiled."""

from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch

from lightning_embed import LanguageModel
from lightning_embed.commands.fit import EmbedCLI
from lightning_embed.model import compiling
from lightning_embed.model.decoder import DecoderLM
from lightning_embed.training import lightning_module


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch):
    """The model's settings that a command line gives; nothing is built."""

    class Parsed(BaseException):
        pass

    def parse(*arguments: str):
        def stop(self: EmbedCLI) -> None:
            raise Parsed(self.config["fit"].model.as_dict())

        monkeypatch.setattr(EmbedCLI, "before_instantiate_classes", stop)
        with pytest.raises(Parsed) as found:
            EmbedCLI("fit", list(arguments))
        return found.value.args[0]

    return parse


def test_every_setting_of_the_network_is_an_option(parsed, tmp_path: Path) -> None:
    assert DecoderLM.settings().items() <= parsed().items()
    assert "padding_idx" not in parsed()
    config = tmp_path / "settings.yaml"
    config.write_text("model:\n  d_model: 48\n  norm_eps: 1.0e-5\n")
    found = parsed("--config", str(config), "--model.n_layers", "7", "--model.rope_theta", "5e5")
    expected = {"d_model": 48, "norm_eps": 1e-5, "n_layers": 7, "rope_theta": 5e5}
    assert {name: found[name] for name in expected} == expected
    assert LanguageModel(**found).hparams["norm_eps"] == 1e-5


def test_its_help_is_that_of_the_network(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        EmbedCLI("fit", ["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "--model.rope_theta ROPE_THETA rotary base frequency. (type: float" in told


@pytest.mark.parametrize("name", ["d_modle", "padding_idx"])
def test_an_unknown_setting_is_a_type_error(name: str) -> None:
    with pytest.raises(TypeError, match=name):
        LanguageModel(**{name: 3})


def test_a_checkpoint_knows_the_whole_shape(tmp_path: Path) -> None:
    model = LanguageModel(100, 8, d_model=16, n_heads=2, n_layers=1, norm_eps=1e-4)
    expected = DecoderLM.settings(d_model=16, n_heads=2, n_layers=1, norm_eps=1e-4)
    assert expected.items() <= dict(model.hparams).items()
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = LanguageModel.load_from_checkpoint(tmp_path / "last.ckpt")
    assert dict(loaded.hparams) == dict(model.hparams)
    assert loaded.network.norm.eps == 1e-4
    ids = torch.tensor([[0, 5, 9]])
    assert torch.equal(loaded(ids), model(ids))


def test_whether_compiling_pays_follows_from_the_planned_work_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """10 steps of 1,000 tokens pay, 9 do not; told to compile, or not to, nothing is reckoned."""
    monkeypatch.setattr(lightning_module, "why_not_compile", lambda device: None)
    model = LanguageModel(vocab_size=100, d_model=32, n_heads=2, n_layers=1)
    data = SimpleNamespace(targets_per_step=1000.0, max_length=10)
    trainer = SimpleNamespace(
        max_steps=10, max_epochs=None, world_size=1, datamodule=data, precision="bf16-mixed"
    )
    model._trainer = trainer  # type: ignore[assignment]
    flops = model.network.training_flops(10_000, 50_000)
    monkeypatch.setattr(compiling, "PAYS_FROM", 0.999 * flops / torch.get_num_threads())
    assert model.why_eager() is None
    trainer.precision = "32-true"
    assert model.why_eager() is not None
    trainer.max_steps, trainer.precision = 9, "bf16-mixed"
    assert (model.why_eager() or "").startswith("9 steps are over before compiling pays")
    trainer.max_steps, trainer.world_size = 10, 2
    assert model.why_eager() is not None  # each process compiles, and does half of the work
    model.hparams["compile"] = True
    assert model.why_eager() is None
    model.hparams["compile"] = False
    assert model.why_eager() == "model.compile is false"
