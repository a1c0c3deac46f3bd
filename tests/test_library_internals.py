"""Private names of libraries: each still does what it is used for, and one file alone uses them."""

import ast
import inspect
import itertools
import os
import re
import shutil
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer
from torch import nn
from torch.distributed.tensor import Shard
from torch.utils.tensorboard import SummaryWriter
from torchmetrics import SumMetric

import lightning_embed
from lightning_embed import library_internals as internals
from lightning_embed.recording.summaries import layout

ROOT = Path(lightning_embed.__file__).parent
FILES = [p for p in sorted(ROOT.rglob("*.py")) if p.name != "library_internals.py"]


# Nobody else touches any --------------------------------------------------------------------------

PUBLIC = {"_asdict", "_fields", "_replace", "_make"}  # of named tuples
ENDINGS = {"_token_id"}  # of names, such as pad_token_id


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in PUBLIC


def own_names(tree: ast.Module) -> set[str]:
    """Everything that a file itself defines or assigns."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def foreign_private_names(source: str) -> list[str]:
    """Private attributes that the file does not define, and private modules and names imported."""
    tree = ast.parse(source)
    own, found = own_names(tree), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            found.append(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom | ast.Import):
            module = getattr(node, "module", None) or ""
            names = [*module.split("."), *(p for a in node.names for p in a.name.split("."))]
            found += [name for name in names if is_private(name)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts = re.findall(r"^_[a-z]+_[a-z_]+\.?$", node.value)
            found += [text for text in texts if text not in ENDINGS]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_other_file_uses_a_private_name_of_a_library(path: Path) -> None:
    assert foreign_private_names(path.read_text(encoding="utf-8")) == []


def test_the_search_finds_what_it_is_for() -> None:
    source = """
from torch._inductor import config
import torch._dynamo
class A(Strategy):
    def f(self):
        self._mine = 1
        return self._mine + self._theirs + other._inner.x + t._replace(a=1)
state = {"_batches_that_stepped": 1, "_": 2}
"""
    found = foreign_private_names(source)
    assert sorted(found) == sorted(
        ["_inductor", "_dynamo", "self._theirs", "other._inner", "_batches_that_stepped"]
    )


def foreign_bases(kind: type) -> list[type]:
    """Classes of libraries that it is built on, written in Python."""
    inside = ("lightning_embed", "builtins", "typing", "enum", "abc", "_pickle", "_io", "torch._C")
    return [base for base in kind.__mro__[1:] if not base.__module__.startswith(inside)]


def our_subclasses() -> list[type]:
    """Classes of ours whose bases are a library's."""
    found = []
    for path in FILES:
        name = ".".join(("lightning_embed", *path.relative_to(ROOT).with_suffix("").parts))
        if path.name in ("__main__.py", "__init__.py"):
            continue
        module = __import__(name, fromlist=["_"])
        for _, kind in inspect.getmembers(module, inspect.isclass):
            foreign = [
                b for b in kind.__mro__[1:] if not b.__module__.startswith("lightning_embed")
            ]
            if kind.__module__ == name and foreign != [object]:
                found.append(kind)
    return found


@pytest.mark.parametrize("kind", our_subclasses(), ids=lambda kind: kind.__qualname__)
def test_no_attribute_of_ours_hides_a_private_one_of_a_base_class(kind: type) -> None:
    """A name that both use for something else would break either, unless it is a known override."""
    ours = set(re.findall(r"self\.(_[a-z]\w*)|def (_[a-z]\w*)", inspect.getsource(kind)))
    names = {a or b for a, b in ours} - internals.OVERRIDES.keys()
    for base in foreign_bases(kind):
        source = inspect.getsource(base)
        theirs = {a or b for a, b in re.findall(r"self\.(_[a-z]\w*)|def (_[a-z]\w*)", source)}
        assert not names & theirs, f"{kind.__qualname__} and {base.__qualname__}: {names & theirs}"


BASES = {"torch.nn.Module": nn.Module, "LightningCLI": LightningCLI}


@pytest.mark.parametrize("name", internals.OVERRIDES)
def test_an_overridden_method_is_still_called(name: str) -> None:
    base = BASES[internals.OVERRIDES[name].partition(":")[0]]
    assert callable(getattr(base, name))
    assert re.search(rf"\.{name}\(", inspect.getsource(base))


def test_a_process_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the system's call, which waits for no thread and runs nothing that is left to do."""
    asked: list[int] = []
    monkeypatch.setattr(os, "_exit", asked.append)
    internals.end_at_once(7)
    assert asked == [7]


def test_processes_wait_for_each_other_as_long_as_asked() -> None:
    strategy = DDPStrategy(timeout=timedelta(seconds=5))
    trainer = L.Trainer(accelerator="cpu", devices=2, strategy=strategy, logger=False)
    assert internals.meeting_timeout(trainer) == timedelta(seconds=5)


# Lightning ----------------------------------------------------------------------------------------


class Watched(L.Callback):
    """Asks at every batch's end what the internals are asked for."""

    def __init__(self) -> None:
        self.accumulating: list[bool] = []
        self.dumped: dict[str, Any] = {}
        self.trainer_known = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        internals.leave_signals_alone(trainer)
        self.trainer_known = internals.trainer_of(pl_module) is trainer

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self.accumulating.append(internals.is_accumulating(trainer))
        self.dumped = internals.dump_checkpoint(trainer)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """What was seen in five batches, two of which make an optimizer step."""
    callback = Watched()
    trainer = L.Trainer(
        default_root_dir=tmp_path_factory.mktemp("boring"),
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=5,
        limit_val_batches=0,
        accumulate_grad_batches=2,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(BoringModel())
    return callback


def test_accumulation_ends_with_every_second_batch_and_with_the_last(watched: Watched) -> None:
    assert watched.accumulating == [True, False, True, False, False]


def test_a_checkpoint_can_be_had_without_writing_one(watched: Watched) -> None:
    assert watched.dumped["global_step"] == 3
    assert {"state_dict", "optimizer_states", "loops", "callbacks"} <= watched.dumped.keys()


def test_the_trainer_of_a_module(watched: Watched) -> None:
    assert watched.trainer_known
    assert internals.trainer_of(BoringModel()) is None


def test_lightning_asks_for_sigterm_by_the_name_that_is_replaced() -> None:
    from lightning.pytorch.loops import training_epoch_loop

    assert "self._broadcast_sigterm_tensor()" in inspect.getsource(training_epoch_loop)


def test_every_process_becomes_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = ModelParallelStrategy("auto", 2)
    monkeypatch.setattr(ModelParallelStrategy, "num_processes", 8)
    internals.use_every_process_as_shard(strategy)
    assert strategy._data_parallel_size == 4


def test_a_new_event_file_takes_back_from_a_step_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Files of one second would be read in the order of a number, in which 10 comes before 9.
    clock = SimpleNamespace(time=itertools.count(1.0).__next__)
    monkeypatch.setattr(event_file_writer, "time", clock)
    logger = TensorBoardLogger(tmp_path, "run", version="")
    for step in range(1, 10):
        logger.log_metrics({"a": 1.0}, step)
    logger.experiment.close()
    internals.begin_new_event_file(logger, 7)
    logger.log_metrics({"a": 2.0}, 7)
    logger.experiment.close()
    found = EventAccumulator(str(tmp_path / "run")).Reload().Scalars("a")
    assert [event.step for event in found] == [1, 2, 3, 4, 5, 6, 7]
    assert len(list((tmp_path / "run").glob("events.*"))) == 2


def test_an_entry_reaches_a_writer_that_was_closed(tmp_path: Path) -> None:
    writer = SummaryWriter(str(tmp_path))
    writer.close()
    internals.add_summary(writer, layout())
    writer.close()
    assert "custom_scalars__config__" in EventAccumulator(str(tmp_path)).Reload().Tags()["tensors"]


def test_options_of_a_commands_parser() -> None:
    parser = LightningArgumentParser()
    parser.add_argument("--model.width", type=int)
    assert "model.width" in internals.option_names(parser)


def test_a_commands_parser_knows_its_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LightningCLI, "instantiate_classes", lambda self: None)
    monkeypatch.setattr(LightningCLI, "_run_subcommand", lambda self, name: None)
    cli = LightningCLI(BoringModel, args=["fit"], save_config_callback=None)
    assert internals.command_parser(cli, "fit").get_default("trainer.fast_dev_run") is False


@pytest.mark.parametrize("value", [1, 1.0, 2, 0, 0.5, None])
def test_a_whole_number_stays_one(value: float | None) -> None:
    parser = LightningArgumentParser()
    parser.add_lightning_class_args(L.Trainer, "trainer")
    name = "trainer.limit_val_batches"
    internals.take_whole_numbers(parser, name)
    for given in ([f"--{name}={'null' if value is None else value}"], {name: value}):
        parse = parser.parse_args if isinstance(given, list) else parser.parse_object
        found = parse(given)[name]
        assert found == value and type(found) is type(value)


def test_a_metrics_defaults_are_what_reset_restores() -> None:
    metric = SumMetric()
    (name,) = internals.metric_defaults(metric)
    internals.metric_defaults(metric)[name] = torch.tensor(5.0)
    metric.reset()
    assert metric.compute() == 5


# torch --------------------------------------------------------------------------------------------


def test_bfloat16_units_are_those_the_operating_system_names() -> None:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        pytest.skip("no /proc/cpuinfo")
    flags = cpuinfo.read_text(encoding="utf-8")
    wanted = "AMX" if "amx_bf16" in flags else "AVX512-BF16" if "avx512_bf16" in flags else None
    assert internals.fast_bfloat16() == wanted
    assert hasattr(torch.cpu, "_is_amx_tile_supported")
    assert hasattr(torch.cpu, "_is_avx512_bf16_supported")


def test_a_sparse_gradient_in_its_parts() -> None:
    embedding = nn.Embedding(5, 2, sparse=True)
    embedding(torch.tensor([3, 3])).sum().backward()
    assert embedding.weight.grad is not None
    indices, values = internals.sparse_parts(embedding.weight.grad)
    assert indices.tolist() == [[3, 3]] and values.shape == (2, 2)


def test_which_rows_a_rank_holds() -> None:
    assert [internals.shard_extent(Shard(0), 5, 2, rank) for rank in range(2)] == [(3, 0), (2, 3)]


def test_one_call_for_many_tensors() -> None:
    ones, twos = [torch.ones(2)], [torch.full((2,), 2.0)]
    assert internals.foreach_lerp(ones, twos, 0.5)[0].tolist() == [1.5, 1.5]
    internals.foreach_lerp_(ones, twos, 0.5)
    internals.foreach_mul_(ones, 2.0)
    internals.foreach_add_(ones, twos, alpha=-1.0)
    assert ones[0].tolist() == [1.0, 1.0]


def test_the_compiler_that_is_found_is_there() -> None:
    compiler = internals.cpp_compiler()
    assert compiler is None or shutil.which(compiler)


@pytest.mark.parametrize(
    ("machine", "before", "after"),
    [("x86_64", None, True), ("x86_64", False, False), ("aarch64", None, None)],
)
def test_the_compilers_settings_take_and_cpu_flags_are_trusted_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, machine: str, before: bool | None, after: bool | None
) -> None:
    import torch._dynamo
    import torch._inductor.config
    import torch.fx.experimental._config as shapes

    kernels = torch._inductor.config.cpp
    monkeypatch.setattr("platform.machine", lambda: machine)
    kept = shapes.use_duck_shape, torch._dynamo.config.specialize_float, kernels.vec_isa_ok
    try:
        kernels.vec_isa_ok = before
        internals.configure_compiler()
        assert kernels.vec_isa_ok is after
        assert not shapes.use_duck_shape and torch._dynamo.config.specialize_float
    finally:
        shapes.use_duck_shape, torch._dynamo.config.specialize_float, kernels.vec_isa_ok = kept


def test_compiled_graphs_are_counted() -> None:
    @torch.compile(backend="eager")
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    double(torch.ones(2))
    counted = internals.graphs_compiled(sys.modules["torch._dynamo.utils"])
    assert counted >= 1
