"""All that Lightning offers a Trainer, piece by piece: it works, or one line says why not.

The names come from the library, so that a release with another fails here until it has its row.
A piece that works trains a few steps; unless it is there to change training, the weights are those
of a run without it, bit for bit.
"""

import inspect
from pathlib import Path
from typing import Any, NamedTuple, get_args

import lightning as L
import lightning.pytorch.accelerators
import lightning.pytorch.callbacks
import lightning.pytorch.loggers
import lightning.pytorch.plugins
import lightning.pytorch.plugins.environments
import lightning.pytorch.profilers
import lightning.pytorch.strategies
import pytest
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.strategies import StrategyRegistry
from workshop import Workshop, differs, load, padding_is_zero

STEPS = 3


class Row(NamedTuple):
    """One piece: what is typed behind its option, and how it ends.

    Attributes:
        more: further arguments; `FOLDER` in them is one for this test.
        refused: words of the one line; None where it works.
        changes: the piece is there to change training.
    """

    more: str = ""
    refused: str | None = None
    changes: bool = False


def works(more: str = "", changes: bool = False) -> Row:
    return Row(more, None, changes)


def refused(words: str, more: str = "") -> Row:
    return Row(more, words)


NO_PRECISION = "--trainer.precision null"
ABSTRACT = "the class is abstract"
SHARDS = "--config fsdp"
PROCESSES = "take ddp"
TPU = "it needs a TPU"
NO_MACHINE = "this machine has none"

CALLBACKS = {
    "BackboneFinetuning": refused("all are trained from the start"),
    "BaseFinetuning": refused("all are trained from the start"),
    "BasePredictionWriter": works(),
    "BatchSizeFinder": refused("--data.tokens_per_batch"),
    "Callback": works(),
    "Checkpoint": works(),
    "DeviceStatsMonitor": refused("pip install psutil"),
    "EarlyStopping": works("--trainer.callbacks.monitor val/loss"),
    "EMAWeightAveraging": works("--trainer.callbacks.decay 0.5", changes=True),
    "GradientAccumulationScheduler": refused(
        "--trainer.accumulate_grad_batches", '--trainer.callbacks.scheduling {"0":4}'
    ),
    "LambdaCallback": works(),
    "LearningRateFinder": refused("--model.muon_lr"),
    "LearningRateMonitor": works(),
    "ModelCheckpoint": works(),
    "ModelPruning": refused(
        "no checkpoint fits the model",
        "--trainer.callbacks.pruning_fn l1_unstructured --trainer.callbacks.amount 0.5",
    ),
    "ModelSummary": works(),
    "OnExceptionCheckpoint": refused("--checkpoints", "--trainer.callbacks.dirpath FOLDER"),
    "ProgressBar": works(),
    "RichModelSummary": refused("pip install -U rich"),
    "RichProgressBar": refused("pip install -U rich"),
    "SpikeDetection": refused("--loss_watch"),
    "StochasticWeightAveraging": refused("EMAWeightAveraging", "--trainer.callbacks.swa_lrs 0.01"),
    "ThroughputMonitor": works("--trainer.callbacks.batch_size_fn builtins.len"),
    "Timer": works("--trainer.callbacks.duration 00:01:00:00"),
    "TQDMProgressBar": works(),
    "WeightAveraging": works(changes=True),
}

PLUGINS = {
    "AsyncCheckpointIO": refused("the built-in one writes checkpoints"),
    "BitsandbytesPrecision": refused(
        "pip install -U 'bitsandbytes'", f"--trainer.plugins.mode nf4 {NO_PRECISION}"
    ),
    "CheckpointIO": refused(ABSTRACT),
    "DeepSpeedPrecision": refused(SHARDS, "--trainer.plugins.precision bf16-mixed"),
    "DoublePrecision": works(NO_PRECISION, changes=True),
    "FSDPPrecision": refused(SHARDS, "--trainer.plugins.precision bf16-mixed"),
    "HalfPrecision": works(f"--trainer.plugins.precision bf16-true {NO_PRECISION}", changes=True),
    "LayerSync": refused(ABSTRACT),
    "MixedPrecision": works(
        "--trainer.plugins.precision bf16-mixed --trainer.plugins.device cpu " + NO_PRECISION,
        changes=True,
    ),
    "Precision": works(NO_PRECISION),
    "TorchCheckpointIO": refused("the built-in one writes checkpoints"),
    "TorchSyncBatchNorm": works(),
    "TransformerEnginePrecision": refused(
        "pip install -U 'transformer_engine",
        f"--trainer.plugins.weights_dtype torch.bfloat16 {NO_PRECISION}",
    ),
    "XLACheckpointIO": refused("the built-in one writes checkpoints"),
    "XLAPrecision": refused("pip install -U 'torch_xla", NO_PRECISION),
    # Environments.
    "KubeflowEnvironment": works(),
    "LightningEnvironment": works(),
    "LSFEnvironment": refused("LSB_DJOB_RANKFILE"),
    "MPIEnvironment": refused("pip install -U 'mpi4py'"),
    "SLURMEnvironment": works(),
    "TorchElasticEnvironment": works(),
    "XLAEnvironment": refused("pip install -U 'torch_xla"),
}

LOGGERS = {
    "CometLogger": refused("pip install -U 'comet-ml"),
    "CSVLogger": works("--trainer.logger.save_dir FOLDER"),
    "LitLogger": refused("another kind"),
    "Logger": refused(ABSTRACT),
    "MLFlowLogger": refused("pip install -U 'mlflow"),
    "TensorBoardLogger": works("--trainer.logger.save_dir FOLDER"),
    "WandbLogger": refused("pip install -U 'wandb"),
    "true": works(),
    "false": works(),
}

PROFILERS = {
    "AdvancedProfiler": works(),
    "PassThroughProfiler": works(),
    "Profiler": refused("'simple', 'advanced', 'pytorch', 'xla'"),
    "PyTorchProfiler": works(),
    "SimpleProfiler": works(),
    "XLAProfiler": refused(TPU),
    "simple": works(),
    "advanced": works(),
    "pytorch": works(),
    "xla": refused(TPU),
}

STRATEGIES = {
    "auto": works(),
    "ddp": works(),
    "ddp_find_unused_parameters_false": works(),
    "ddp_find_unused_parameters_true": works(),
    "ddp_fork": refused(PROCESSES),
    "ddp_fork_find_unused_parameters_false": refused(PROCESSES),
    "ddp_fork_find_unused_parameters_true": refused(PROCESSES),
    "ddp_notebook": refused(PROCESSES),
    "ddp_notebook_find_unused_parameters_false": refused(PROCESSES),
    "ddp_notebook_find_unused_parameters_true": refused(PROCESSES),
    "ddp_spawn": refused(PROCESSES),
    "ddp_spawn_find_unused_parameters_false": refused(PROCESSES),
    "ddp_spawn_find_unused_parameters_true": refused(PROCESSES),
    "deepspeed": refused(SHARDS),
    "deepspeed_stage_1": refused(SHARDS),
    "deepspeed_stage_2": refused(SHARDS),
    "deepspeed_stage_2_offload": refused(SHARDS),
    "deepspeed_stage_3": refused(SHARDS),
    "deepspeed_stage_3_offload": refused(SHARDS),
    "deepspeed_stage_3_offload_nvme": refused(SHARDS),
    "fsdp": refused(SHARDS),
    "fsdp_cpu_offload": refused(SHARDS),
    "single_device": works(),
    "single_tpu": refused(TPU),
    "single_xla": refused(TPU),
    "xla": refused(TPU),
    "xla_debug": refused(TPU),
}

STRATEGY_CLASSES = {
    "DDPStrategy": works(),
    "DeepSpeedStrategy": refused(SHARDS),
    "FSDPStrategy": refused(SHARDS),
    "ModelParallelStrategy": refused(SHARDS),
    "ParallelStrategy": refused(ABSTRACT),
    "SingleDeviceStrategy": works("--trainer.strategy.device cpu"),
    "Strategy": refused(ABSTRACT),
}

ACCELERATORS = {
    "auto": works(),
    "cpu": works(),
    "cuda": refused(NO_MACHINE),
    "gpu": refused(NO_MACHINE),
    "mps": refused(NO_MACHINE),
    "tpu": refused("give auto, cpu, cuda, gpu, mps"),
}

PRECISIONS = {
    "transformer-engine": refused("pip install -U 'transformer_engine"),
    "transformer-engine-float16": refused("pip install -U 'transformer_engine"),
    "16-true": refused("turns the padding row into NaN"),
    "16-mixed": works(changes=True),
    "bf16-true": works(changes=True),
    "bf16-mixed": works(changes=True),
    "32-true": works(),
    "64-true": works(changes=True),
    "16": works(changes=True),
    "32": works(),
    "64": works(changes=True),
    "bf16": works(changes=True),
}

FLAGS = {  # each with a value that is not its default; the pieces above have tables of their own
    "devices": works("auto"),
    "num_nodes": works("1"),
    "fast_dev_run": refused("--trainer.max_steps 1", "true"),
    "max_epochs": works("1"),
    "min_epochs": works("1"),
    "max_steps": works(f"{STEPS}"),
    "min_steps": works("2"),
    "max_time": works("00:01:00:00"),
    "limit_train_batches": works("0.9"),
    "limit_val_batches": works("0.5"),
    "limit_test_batches": works("0.5"),
    "limit_predict_batches": works("0.5"),
    "overfit_batches": refused("--data.files", "2"),
    "val_check_interval": works("2"),
    "check_val_every_n_epoch": works("2"),
    "num_sanity_val_steps": works("2"),
    "log_every_n_steps": works("1"),
    "enable_checkpointing": refused("--checkpoints.every_n_steps 0", "false"),
    "enable_progress_bar": works("true"),
    "enable_model_summary": works("true"),
    "accumulate_grad_batches": works("2", changes=True),
    "gradient_clip_val": works("0.01", changes=True),
    "gradient_clip_algorithm": works("value", changes=True),
    "deterministic": works("warn"),
    "benchmark": works("true"),
    "inference_mode": refused("cannot enter the graph", "true"),
    "use_distributed_sampler": refused("deals out each process' rows", "true"),
    "detect_anomaly": works("true"),
    "barebones": refused("--trainer.logger false", "true"),
    "sync_batchnorm": works("true"),
    "reload_dataloaders_every_n_epochs": refused("made once for the whole run", "1"),
    "default_root_dir": works("FOLDER"),
    "enable_autolog_hparams": works("false"),
    "model_registry": refused("stay in the run's folder", "mine"),
}


PIECES = {"accelerator", "callbacks", "logger", "plugins", "precision", "profiler", "strategy"}

TABLE: dict[str, dict[str, Row]] = {
    "--trainer.callbacks {}": CALLBACKS,
    "--trainer.plugins {}": PLUGINS,
    "--trainer.logger {}": LOGGERS,
    "--trainer.profiler {}": PROFILERS,
    "--trainer.strategy {}": STRATEGIES,
    "--trainer.strategy.class_path {}": STRATEGY_CLASSES,
    "--trainer.accelerator {}": ACCELERATORS,
    "--trainer.precision {}": PRECISIONS,
    "--trainer.{}": FLAGS,
}


def _precisions() -> set[str]:
    annotation = inspect.signature(L.Trainer.__init__).parameters["precision"].annotation
    found = {str(value) for part in get_args(annotation) for value in get_args(part)}
    return found


@pytest.mark.parametrize(
    ("table", "names"),
    [
        (CALLBACKS, set(lightning.pytorch.callbacks.__all__)),
        (
            PLUGINS,
            {*lightning.pytorch.plugins.__all__}
            | {
                name
                for name in vars(lightning.pytorch.plugins.environments)
                if name.endswith("Environment") and name != "ClusterEnvironment"
            },
        ),
        (LOGGERS, {*lightning.pytorch.loggers.__all__, "true", "false"}),
        (
            PROFILERS,
            {*lightning.pytorch.profilers.__all__, "simple", "advanced", "pytorch", "xla"},
        ),
        (STRATEGIES, {"auto", *StrategyRegistry.available_strategies()}),
        (STRATEGY_CLASSES, set(lightning.pytorch.strategies.__all__)),
        (ACCELERATORS, {"auto", "gpu", *AcceleratorRegistry.available_accelerators()}),
        (PRECISIONS, _precisions()),
        (FLAGS, set(inspect.signature(L.Trainer.__init__).parameters) - PIECES - {"self"}),
    ],
)
def test_the_table_is_complete(table: dict[str, Row], names: set[str]) -> None:
    assert set(table) == names


def rows(working: bool) -> list[Any]:
    """As parameters of a test."""
    return [
        pytest.param(
            option.format(name),
            row,
            id=option.format(name).removeprefix("--trainer."),
        )
        for option, table in TABLE.items()
        for name, row in table.items()
        if (row.refused is None) is working
    ]


def arguments(option: str, row: Row, folder: Path) -> list[str]:
    return [word.replace("FOLDER", str(folder)) for word in f"{option} {row.more}".split()]


@pytest.mark.slow
@pytest.mark.parametrize(("option", "row"), rows(working=False))
def test_refused_in_one_line(workshop: Workshop, tmp_path: Path, option: str, row: Row) -> None:
    told = workshop.run("fit", "--trainer.max_steps", "1", *arguments(option, row, tmp_path / "f"))
    line = told.error_line()
    assert row.refused is not None and row.refused in line, line
    assert len(line) < 300, line
    assert workshop.runs() == []


@pytest.fixture(scope="module")
def plain(corpus: str, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A run without any of it."""
    shop = Workshop(corpus, cache, tmp_path_factory.mktemp("plain"))
    shop.fit("run", steps=STEPS)
    return shop


@pytest.mark.slow
@pytest.mark.parametrize(("option", "row"), rows(working=True))
def test_works(workshop: Workshop, plain: Workshop, tmp_path: Path, option: str, row: Row) -> None:
    found = workshop.run(
        *("fit", "--name", "run", "--trainer.max_steps", str(STEPS)),
        *arguments(option, row, tmp_path / "f"),
    )
    assert found.status == 0, found.out + found.err
    root = tmp_path / "f" if "default_root_dir" in option else workshop.root
    checkpoint = Workshop("", tmp_path, root).checkpoint("run")
    assert load(checkpoint)["global_step"] == STEPS
    assert padding_is_zero(checkpoint)
    assert differs(checkpoint, plain.checkpoint("run")) == row.changes
