"""`EmbedCLI`: LightningCLI with a run's parts put together in plain sight.

Knows: which callbacks a run has, where its folder is, what a checkpoint may change. Leaves to
others: what the parts do.
"""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_embed.callbacks.padding_guard import PaddingGuard
from lightning_embed.callbacks.progress import Progress
from lightning_embed.callbacks.run_length import RunLength
from lightning_embed.callbacks.samples import Samples
from lightning_embed.callbacks.seeding import Seeding
from lightning_embed.callbacks.signals import GracefulStop
from lightning_embed.callbacks.throughput import Throughput
from lightning_embed.checkpoints import (
    AtomicCheckpointIO,
    is_whole,
    newest_checkpoint,
    next_run,
    runs_named,
)
from lightning_embed.cli import resume_command
from lightning_embed.console import say, short
from lightning_embed.datamodule import TextDataModule
from lightning_embed.hardware import suggested_precision, why_not_compile
from lightning_embed.lightning_module import LanguageModel
from lightning_embed.parsing import OneLineParser
from lightning_embed.summary import say_evaluation, say_sample, xz_bits_per_byte

# Hyperparameters that decide a network's shape: a checkpoint fits no other.
SHAPE = (
    "vocab_size d_model n_layers n_heads n_kv_heads d_ff tied qk_norm scale_embedding rope_base"
).split()


class EmbedCLI(LightningCLI):
    """One command (`fit`, `validate`, `test` or `predict`) with its options.

    Args:
        command: which.
        args: the rest of the command line.
        began: `time.perf_counter()` when the program started.
    """

    def __init__(self, command: str, args: list[str], began: float) -> None:
        self.command, self.began = command, began
        super().__init__(
            LanguageModel,
            TextDataModule,
            args=[command, *args],
            parser_class=OneLineParser,
            parser_kwargs={"prog": "train.py"},
            seed_everything_default=42,
            trainer_defaults={
                "default_root_dir": "runs",
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "num_sanity_val_steps": 0,
                "gradient_clip_val": 1.0,
                "use_distributed_sampler": False,  # the plan deals out rows itself
            },
            save_config_callback=SaveConfigCallback if command == "fit" else None,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    # Parsing ---------------------------------------------------------------------------------

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        # Only the one asked for: building all four parsers takes seconds.
        return {self.command: LightningCLI.subcommands()[self.command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--name", type=str | None, default=None, help="The run's name; the config's by default."
        )
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)
        parser.add_lightning_class_args(PaddingGuard, "padding_guard")
        parser.add_lightning_class_args(Samples, "samples")
        parser.add_lightning_class_args(ModelCheckpoint, "best_checkpoint")
        parser.add_lightning_class_args(ModelCheckpoint, "last_checkpoint")
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.set_defaults(
            {
                "best_checkpoint.filename": "best",
                "best_checkpoint.monitor": "val/loss",
                "best_checkpoint.enable_version_counter": False,
                "last_checkpoint.filename": "last",
                "last_checkpoint.every_n_train_steps": 100,
                "last_checkpoint.enable_version_counter": False,
                "early_stopping.monitor": "val/loss",
                "early_stopping.patience": 5,
            }
        )

    def _parse_ckpt_path(self) -> None:
        """Overrides LightningCLI's, which lets a checkpoint's settings replace the user's silently."""

    # Choices a machine makes --------------------------------------------------------------------

    def before_instantiate_classes(self) -> None:
        config = self.config[self.command]
        trainer = config.trainer
        if trainer.accelerator == "auto":  # on macOS MPS must be asked for
            trainer.accelerator = "cuda" if torch.cuda.is_available() else "cpu"
        self.reason = "as asked"
        if trainer.precision is None:
            trainer.precision, self.reason = suggested_precision(trainer.accelerator)
        if str(trainer.precision) in ("16-true",):
            raise ValueError(
                "--trainer.precision 16-true is refused: AdamW's epsilon is 0 in float16 and turns"
                " the padding row into NaN; take 16-mixed, bf16-mixed or bf16-true"
            )
        if trainer.deterministic is None and trainer.accelerator == "cpu":
            trainer.deterministic = True
        files = config.get("config") or []
        self.config_path = str(files[-1]) if files else None
        if self.config_path is not None:
            self.config_path = str(files[0])
        self.name = config.name or (Path(self.config_path).stem if self.config_path else "run")
        if not self.name or Path(self.name).name != self.name or self.name.startswith("."):
            raise ValueError(f"--name {self.name!r} must be a plain folder name")
        self.root = Path(trainer.default_root_dir)
        self._choose_folder(config)
        for key in ("best_checkpoint", "last_checkpoint"):
            config[key].dirpath = str(self.folder / "checkpoints")

    def _choose_folder(self, config: Any) -> None:
        """The run's folder and the checkpoint to begin from, if any."""
        self.checkpoint: Path | None = None
        wanted = config.ckpt_path
        if wanted is None and self.command != "fit":
            wanted = "best"
        if wanted is None:
            self.folder = next_run(self.root, self.name)
            if self.folder.name != self.name:
                say("note", f"{self.root / self.name} is in use, this run is {self.folder}")
        elif wanted == "last":
            self.checkpoint, damaged = newest_checkpoint(self.root, self.name)
            for file in damaged:
                say("warning", f"{file} is damaged and passed over")
            self.folder = self.checkpoint.parent.parent
        elif wanted == "best":
            runs = list(runs_named(self.root, self.name))
            self.folder = runs[-1] if runs else self.root / self.name
            self.checkpoint = self.folder / "checkpoints" / "best.ckpt"
        else:
            self.checkpoint = Path(wanted)
            in_a_run = self.checkpoint.parent.name == "checkpoints"
            self.folder = (
                self.checkpoint.parent.parent if in_a_run else next_run(self.root, self.name)
            )
        if self.checkpoint is not None:
            if not self.checkpoint.exists():
                raise FileNotFoundError(
                    f"no checkpoint at {self.checkpoint}; give --ckpt_path a file, last or best"
                )
            if self.checkpoint.is_file() and not is_whole(self.checkpoint):
                raise ValueError(
                    f"{self.checkpoint} is damaged (its checksums do not hold); give --ckpt_path"
                    " another, or last for the newest whole one"
                )
            config.ckpt_path = str(self.checkpoint)
            self._compare_settings(config)

    def _compare_settings(self, config: Any) -> None:
        """Nothing in a checkpoint overrides what was asked for without a word."""
        assert self.checkpoint is not None
        if not self.checkpoint.is_file():
            return
        saved = torch.load(self.checkpoint, map_location="cpu", weights_only=True, mmap=True)
        hparams = saved.get("hyper_parameters", {})
        parser = self._subcommand_parsers[self.command]
        for key, then in hparams.items():
            now = config.model.get(key)
            if key in ("vocab_size", "max_length") or now == then or list_of(now) == list_of(then):
                continue
            default = parser.get_default(f"model.{key}")
            if key in SHAPE and self.command != "fit" and now == default:
                config.model[key] = then
            elif key in SHAPE:
                raise ValueError(
                    f"--model.{key} is {now}, but {self.checkpoint} was trained with {then}: a"
                    " checkpoint fits no other shape; leave it as it was or start a new run"
                )
            elif self.command == "fit":
                say("changed", f"model.{key} {then} -> {now}, applied from here on")
        if self.command == "fit":
            say("resume", f"{self.checkpoint}: step {saved['global_step']}, epoch {saved['epoch']}")

    # Assembly ----------------------------------------------------------------------------------

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        given = self.config_init[self.command]["trainer"]
        throughput = Throughput()
        length = given["max_steps"], given["max_epochs"], given["max_time"]
        self.throughput = throughput
        last = self.folder / "checkpoints" / "last.ckpt"
        resume = resume_command(self.config_path, self.name, str(self.root))
        own: list[Any] = [
            RunLength(given=length != (-1, None, None)),
            Seeding(self.config_init[self.command]["data"].seed),
            throughput,
            Progress(throughput, self.began),
            GracefulStop(last, resume),
        ]
        given["callbacks"] = [*(given["callbacks"] or []), *own]
        kwargs.setdefault("plugins", [*(given["plugins"] or []), AtomicCheckpointIO()])
        fit = self.command == "fit"
        if given["logger"] is None:
            kwargs["logger"] = fit and TensorBoardLogger(
                str(self.folder.parent), self.folder.name, version=""
            )
        number = len(list(self.folder.glob("config*.yaml"))) if fit else 0
        resumed = "" if self.checkpoint is None else f"-resume-{max(1, number)}"
        self.save_config_kwargs = {"config_filename": f"config{resumed}.yaml", "overwrite": True}
        return super().instantiate_trainer(**kwargs)

    # Commands ----------------------------------------------------------------------------------

    def before_fit(self) -> None:
        say("run", f"{self.folder}   seed {self.config[self.command].seed_everything}")

    def fit(self, model: LanguageModel, datamodule: TextDataModule, **kwargs: Any) -> None:
        self._say_settings(datamodule, model)
        self.trainer.fit(model, datamodule, **{**kwargs, "weights_only": True})
        self._say_end(model, datamodule)

    def _say_settings(self, data: TextDataModule, model: LanguageModel) -> None:
        prepared = data.prepared
        report, train = prepared.report, prepared.train
        counts = report["counts"]
        say(
            "corpus",
            f"{report['title']}, {counts['documents']:,} documents, "
            f"{counts['bytes'] / 1e6:.1f} MB  [{prepared.key[:8]}]",
        )
        for note in report["notes"]:
            say("", note)
        asked = report["vocabulary asked"]
        fewer = (
            f" (the text supports no more; {asked:,} asked)"
            if asked and asked > report["vocabulary"]
            else ""
        )
        say(
            "tokens",
            f"{short(len(train.tokens))} to train, {short(len(prepared.validation.tokens))} held"
            f" out; vocabulary {report['vocabulary']:,}{fewer}; <pad>=1 checked",
        )
        say(
            "numbers",
            f"{self.trainer.precision} ({self.reason}); {model.hparams['optimizer']};"
            f" {self.trainer.world_size} process, {torch.get_num_threads()} threads",
        )

    def _say_end(self, model: LanguageModel, data: TextDataModule) -> None:
        best = self.folder / "checkpoints" / "best.ckpt"
        path = best if best.is_file() else None
        metrics = model.metrics
        kwargs = {"ckpt_path": str(path), "weights_only": True} if path else {}
        self.trainer.validate(model, data, verbose=False, **kwargs)
        prepared = data.prepared
        xz = None
        texts = prepared.train.text_file, prepared.validation.text_file
        if self.trainer.is_global_zero and all(text.is_file() for text in texts):
            train, held_out = (text.read_bytes() for text in texts)
            xz = xz_bits_per_byte(train, held_out, prepared.path / "xz.json")
        say_evaluation(metrics, xz)
        samples = next(c for c in self.trainer.callbacks if isinstance(c, Samples))
        if self.trainer.is_global_zero and samples.max_new_tokens:
            say_sample(samples.prompts[0] + samples.texts(model)[0])
        row = model.network.embedding.weight[model.network.embedding.padding_idx]
        say(
            "padding",
            f"row {'is zero' if not row.any() else 'IS NOT ZERO'} after {self.trainer.global_step} steps",
        )
        say("best", str(path or "none: no validation ran"))
        say("watch", f"tensorboard --logdir {self.root}")
        say("go on", resume_command(self.config_path, self.name, str(self.root)))
        if path:
            say("more", f'python train.py generate --checkpoint {path} --prompt "def "')
        say(
            "own text",
            f'python train.py fit --config {self.config_path or "configs/stdlib.yaml"} --data.files "notes/*.md"',
        )

    def validate(self, model: LanguageModel, datamodule: TextDataModule, **kwargs: Any) -> None:
        self.trainer.validate(
            model, datamodule, **{**kwargs, "weights_only": True, "verbose": False}
        )
        say_evaluation(model.metrics, None)

    def test(self, model: LanguageModel, datamodule: TextDataModule, **kwargs: Any) -> None:
        self.trainer.test(model, datamodule, **{**kwargs, "weights_only": True, "verbose": False})
        say_evaluation(model.metrics, None)

    def predict(self, model: LanguageModel, datamodule: TextDataModule, **kwargs: Any) -> None:
        if self.trainer.world_size > 1:
            raise ValueError("predict runs in one process; give --trainer.devices 1")
        kwargs["return_predictions"] = True
        rows = self.trainer.predict(model, datamodule, **{**kwargs, "weights_only": True})
        write_predictions(
            rows, datamodule.prepared.report["sources"], self.folder / "predictions.csv"
        )


def list_of(value: Any) -> Any:
    """Tuples come back from YAML and checkpoints as lists."""
    return list(value) if isinstance(value, tuple) else value


def write_predictions(rows: Any, sources: list[str], path: Path) -> None:
    """One line a held-out source: tokens, bytes, bits per byte; the hardest first."""
    import csv
    import math

    columns = {key: torch.cat([row[key] for row in rows]).cpu() for key in rows[0]}
    table = []
    for number in columns["source"].unique().tolist():
        mine = columns["source"] == number
        nll = float(columns["nll"][mine].double().sum())
        targets, n_bytes = int(columns["targets"][mine].sum()), int(columns["n_bytes"][mine].sum())
        table.append((sources[number], targets, n_bytes, nll / math.log(2) / max(1, n_bytes)))
    table.sort(key=lambda row: -row[-1])
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("source", "targets", "bytes", "bits_per_byte"))
        writer.writerows((s, t, b, f"{r:.4f}") for s, t, b, r in table)
    say(
        "written",
        f"{path}: {len(table)} sources; hardest {table[0][0]} at {table[0][-1]:.3f} bits/byte",
    )
