"""The settings of a `LanguageModel` are its own and those of `DecoderLM`, from one list."""

from pathlib import Path

import lightning as L
import pytest
import torch

from lightning_embed import LanguageModel
from lightning_embed.commands.fit import EmbedCLI
from lightning_embed.model.decoder import DecoderLM


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
