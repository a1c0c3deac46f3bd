"""`PaddingGuard` on modules not written here: any embedding, however it is held, and a model of
`transformers` built from a config.

`transformers` is no dependency of this package; where it is missing its tests are skipped.
"""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from lightning_embed import PaddingGuard, PaddingVectorChanged

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on so small a training

V, D = 12, 4


class Wraps(L.LightningModule):
    """Trains anything that makes of ids `(B, T)` vectors with a last axis of D."""

    def __init__(self, inner: nn.Module, optimizer: type[Optimizer] = SGD) -> None:
        super().__init__()
        self.inner = inner
        self.head = nn.Linear(D, V)
        self.optimizer = optimizer

    def training_step(self, ids: Tensor, batch_idx: int) -> Tensor:
        vectors = self.inner(ids).flatten(0, -2)
        return F.cross_entropy(self.head(vectors), ids.flatten()[: len(vectors)], ignore_index=1)

    def configure_optimizers(self) -> Optimizer:
        return self.optimizer(self.parameters(), lr=0.1)


class Nudges(L.Callback):
    """Writes into one row of one weight at step 2, outside the optimizer."""

    def __init__(self, weight: Any, row: int) -> None:
        self.weight, self.row = weight, row

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step == 1:
            self.weight().data[self.row] += 1e-7


def fit(module: L.LightningModule, *callbacks: L.Callback, **settings: Any) -> None:
    torch.manual_seed(0)
    ids = torch.randint(2, V - 1, (4, 2, 5))
    ids[:, :, -1] = 1
    quiet: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "max_epochs": 1,
    }
    trainer = L.Trainer(callbacks=list(callbacks), **(quiet | settings))
    trainer.fit(module, torch.utils.data.DataLoader(list(ids), batch_size=None))


class Tower(nn.Module):
    """Several, nested, one shared, one without padding."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(V, D, padding_idx=1)
        self.parts = nn.ModuleDict({"deep": nn.ModuleList([nn.Embedding(V, D, padding_idx=-1)])})
        self.again = self.words
        self.positions = nn.Embedding(V, D)

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1])
        return (
            self.words(ids) + self.parts["deep"][0](ids) + self.again(ids) + self.positions(places)
        )


def compiled() -> nn.Module:
    module = nn.Sequential(nn.Embedding(V, D, padding_idx=1))
    module.compile(backend="aot_eager")
    return module


def wrapped_by_compile() -> nn.Module:
    """The other way of compiling, whose names hold `_orig_mod`."""
    return nn.Sequential(torch.compile(nn.Embedding(V, D, padding_idx=1), backend="aot_eager"))


CASES = {
    "embedding": (lambda: nn.Embedding(V, D, padding_idx=1), "inner.weight[1]"),
    "first id": (lambda: nn.Embedding(V, D, padding_idx=0), "inner.weight[0]"),
    "negative": (lambda: nn.Embedding(V, D, padding_idx=-2), f"inner.weight[{V - 2}]"),
    "bag": (lambda: nn.EmbeddingBag(V, D, padding_idx=1, mode="sum"), "inner.weight[1]"),
    "bag of means": (lambda: nn.EmbeddingBag(V, D, padding_idx=-1), f"inner.weight[{V - 1}]"),
    "sparse": (lambda: nn.Embedding(V, D, padding_idx=1, sparse=True), "inner.weight[1]"),
    "sparse bag": (
        lambda: nn.EmbeddingBag(V, D, padding_idx=1, mode="sum", sparse=True),
        "inner.weight[1]",
    ),
    "several": (Tower, "inner.words.weight[1]"),
    "nested": (Tower, f"inner.parts.deep.0.weight[{V - 1}]"),
    "compiled": (compiled, "inner.0.weight[1]"),
    "wrapped": (wrapped_by_compile, "inner.0.weight[1]"),
    "half": (lambda: nn.Embedding(V, D, padding_idx=1).bfloat16(), "inner.weight[1]"),
}


@pytest.mark.parametrize("case", CASES)
def test_silent_on_honest_training_and_names_the_one_that_moved(
    case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    build, name = CASES[case]
    module = Wraps(build())
    if case == "half":
        module.head.bfloat16()
    fit(module, PaddingGuard())
    assert capsys.readouterr().out == ""
    path, row = name[:-1].split("[")

    def weight() -> Tensor:
        return dict(module.state_dict(keep_vars=True))[
            path if case != "wrapped" else "inner.0._orig_mod.weight"
        ]

    with pytest.raises(PaddingVectorChanged) as raised:
        fit(module, Nudges(weight, int(row)), PaddingGuard())
    assert raised.value.finding.name == name
    assert (raised.value.cause, raised.value.finding.step) == ("in_place", 2)


@pytest.mark.parametrize("case", ["embedding", "compiled", "wrapped"])
def test_what_is_written_to_a_checkpoint_is_looked_at(case: str, tmp_path: Path) -> None:
    """An average, say, that is not what is being trained; keys may hold `_orig_mod`."""

    class Writes(L.Callback):
        def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> None:
            (key,) = (key for key in checkpoint["state_dict"] if key.startswith("inner."))
            checkpoint["state_dict"][key] = checkpoint["state_dict"][key] + 1

        def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
            if trainer.global_step == 3:
                trainer.save_checkpoint(tmp_path / "spoiled.ckpt")

    with pytest.raises(PaddingVectorChanged) as raised:
        fit(Wraps(CASES[case][0]()), Writes(), PaddingGuard())
    assert (raised.value.finding.deviation, raised.value.finding.step) == (1, 3)
    assert not (tmp_path / "spoiled.ckpt").exists()


def test_a_shared_embedding_is_watched_once(capsys: pytest.CaptureFixture[str]) -> None:
    module = Wraps(Tower())
    fit(module, Nudges(lambda: module.inner.again.weight, 1), PaddingGuard("warn"))
    assert capsys.readouterr().out.count("moved by") == 1


@pytest.mark.parametrize("inner", [nn.Embedding(V, D), nn.EmbeddingBag(V, D)])
def test_without_padding_it_says_so_once(
    inner: nn.Module, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(Wraps(inner), PaddingGuard())
    assert capsys.readouterr().out.count("nothing to guard") == 1


def test_a_module_without_embeddings(capsys: pytest.CaptureFixture[str]) -> None:
    class Numbers(Wraps):
        def training_step(self, ids: Tensor, batch_idx: int) -> Tensor:
            return self.head(ids[:, :D].float()).square().mean()

    fit(Numbers(nn.Identity()), PaddingGuard("repair"))
    assert capsys.readouterr().out.count("nothing to guard") == 1


def test_each_embedding_is_logged_under_its_name() -> None:
    class Records(DummyLogger):
        names: set[str] = set()  # noqa: RUF012

        def log_metrics(self, values: dict[str, float], step: int) -> None:
            self.names |= {name for name in values if name.startswith("padding/")}

    fit(Wraps(Tower()), PaddingGuard(every_n_steps=1), logger=Records())
    expected = {
        f"padding/{kind}/{name}"
        for kind in ("norm", "gradient")
        for name in ("inner.words.weight", "inner.parts.deep.0.weight")
    }
    assert Records.names >= expected


# A model of transformers -------------------------------------------------------------------------


def opt() -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.OPTConfig(
        vocab_size=40,
        hidden_size=16,
        word_embed_proj_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        ffn_dim=24,
        max_position_embeddings=16,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        tie_word_embeddings=True,
    )
    return transformers.OPTForCausalLM(config)


def roberta() -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.RobertaConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=20,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        type_vocab_size=1,
        tie_word_embeddings=True,
    )
    return transformers.RobertaForMaskedLM(config)


class Theirs(L.LightningModule):
    """What anybody writes round a model of `transformers`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def training_step(self, ids: Tensor, batch_idx: int) -> Tensor:
        mask = ids != 1
        return self.model(
            input_ids=ids, attention_mask=mask.long(), labels=ids.masked_fill(~mask, -100)
        ).loss

    def configure_optimizers(self) -> Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


@pytest.mark.parametrize("build", [opt, roberta])
def test_a_tied_model_of_transformers_moves_its_padding_row(build: Any) -> None:
    """From a config, `pad_token_id=1`, trained with labels of -100 at padding."""
    torch.manual_seed(0)
    module = Theirs(build())
    weight = module.model.get_input_embeddings().weight
    assert module.model.get_output_embeddings().weight is weight
    with torch.no_grad():
        weight[1] = 0.0  # as a model starts that has been taken care of
    with pytest.raises(PaddingVectorChanged) as raised:
        fit(module, PaddingGuard())
    assert (raised.value.cause, raised.value.finding.step) == ("tied_head", 1)
    assert raised.value.finding.gradient > 0
    assert not bool((weight[1] == 0).all())


@pytest.mark.parametrize("build", [opt, roberta])
def test_one_call_protects_it(build: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from lightning_embed.padding.embedding import protect_padding_row

    torch.manual_seed(0)
    module = Theirs(build())
    weight = module.model.get_input_embeddings().weight
    with torch.no_grad():
        weight[1] = 0.0
    protect_padding_row(weight)
    before = weight.detach().clone()
    fit(module, PaddingGuard())
    assert (weight[1].view(torch.int32) == 0).all()
    assert (weight[2:] != before[2:]).any()
    # RoBERTa's position embeddings have a padding_idx too and start at zero: nothing to note.
    assert "moved" not in capsys.readouterr().out
