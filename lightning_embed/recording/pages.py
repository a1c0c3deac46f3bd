"""`Pages`: TensorBoard's pages beside the curves, and pictures in the run's folder.

    CUSTOM SCALARS, HPARAMS, TEXT   when training begins           `summaries.py`, `words.py`
    HISTOGRAMS                      at each validation             `histograms.py`
    PROJECTOR                       at the end, or each validation `projector.py`
    IMAGES, and RUN/pictures/*.png  after the last evaluation      `drawings.py`

All of it outside of the time that tokens per second are counted in, and by one process; sharded
networks have the first line alone. Other loggers get figures (`figures.log`) and no pages.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import ModelParallelStrategy

from lightning_embed.atomic import replacing
from lightning_embed.checkpointing.resume import Resuming
from lightning_embed.console import say
from lightning_embed.data.datamodule import TextDataModule
from lightning_embed.data.plan import Layout, plan_epoch
from lightning_embed.data.windows import Windows, cut_windows
from lightning_embed.errors import UserError
from lightning_embed.evaluation.breakdown import Scored, by_position
from lightning_embed.evaluation.metrics import WindowSums
from lightning_embed.library_internals import add_summary
from lightning_embed.processes import install_command
from lightning_embed.recording import drawings, projector, summaries, words
from lightning_embed.recording.histograms import Histogram, of_gradients, of_weights
from lightning_embed.special_tokens import PAD_ID
from lightning_embed.training.lightning_module import LanguageModel

WINDOWS_DRAWN = 200_000  # at most, in the histogram of lengths


class Pages(L.Callback):
    """Fills TensorBoard's pages beside the curves.

    Args:
        histograms: of weights, gradients and row norms at each validation.
        projector: when the tokens' vectors are written: at the "end", at each "validation" too, or
            "never".
        pictures: draw figures at the end, which takes the extra `plots`.
    """

    def __init__(
        self,
        histograms: bool = True,
        projector: Literal["end", "validation", "never"] = "end",
        pictures: bool = True,
    ) -> None:
        if projector not in ("end", "validation", "never"):
            raise UserError(f"--pages.projector is {projector!r}; choose end, validation or never")
        self.histograms, self.projector, self.pictures = histograms, projector, pictures
        self.folder = Path()  # the run's, set by whoever knows it, like these
        self.config = Path()
        self.command = ""
        self.versions: dict[str, str] = {}
        self.machine = ""
        self._counts: np.ndarray | None = None

    # Hooks -------------------------------------------------------------------------------------

    def on_train_start(self, trainer: L.Trainer, pl_module: LanguageModel) -> None:  # type: ignore[override]
        writers = _writers(trainer)
        if not writers:
            return
        step, settings = trainer.global_step, self._settings(trainer, pl_module)
        texts = {
            "run/1 command and machine": words.circumstances(
                self.command, list(self.versions.items()), Path.cwd()
            ),
            "run/2 network": words.modules(pl_module.network),
        }
        with suppress(OSError):
            texts["run/3 config"] = words.as_code(self.config.read_text(encoding="utf-8"))
        for writer in writers:
            with suppress(OSError):  # a full disk, of which the next figures' entry warns
                for entry in (summaries.layout(_named(trainer)), *summaries.session(settings)):
                    add_summary(writer, entry)
                for tag, text in texts.items():
                    writer.add_text(tag, text, step)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: L.Trainer, pl_module: LanguageModel, *args: Any
    ) -> None:
        if self.histograms and Resuming.validates_now(trainer):  # after it gradients are gone
            self._write_histograms(trainer, of_gradients(pl_module.network))

    def on_validation_end(self, trainer: L.Trainer, pl_module: LanguageModel) -> None:  # type: ignore[override]
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if self.histograms:
            self._write_histograms(trainer, of_weights(pl_module.network))
        if self.projector == "validation":
            self._write_vectors(trainer, pl_module)

    @staticmethod
    def _write_histograms(trainer: L.Trainer, found: Iterator[tuple[str, Histogram]]) -> None:
        writers = _writers(trainer) if _can_look(trainer) else []
        for tag, histogram in found if writers else ():
            for writer in writers:
                with suppress(OSError):
                    writer.add_histogram_raw(
                        tag,
                        min=histogram.edges[0],
                        max=histogram.edges[-1],
                        num=histogram.n,
                        sum=histogram.total,
                        sum_squares=histogram.squares,
                        bucket_limits=histogram.edges[1:],
                        bucket_counts=histogram.counts,
                        global_step=trainer.global_step,
                    )

    # After training ----------------------------------------------------------------------------

    @contextmanager
    def last_evaluation(
        self, trainer: L.Trainer, model: LanguageModel, data: TextDataModule
    ) -> Iterator[None]:
        """Around the evaluation of the best weights, on all processes: pictures are drawn of it."""
        draws = trainer.strategy.broadcast(self.pictures and drawings.can_draw())
        if draws:
            sums = WindowSums(len(data.eval_windows()), data.max_length)
            model.window_sums = sums.to(model.device)
        yield
        began = time.perf_counter()
        for writer in _writers(trainer):
            with suppress(OSError):
                add_summary(writer, summaries.session_end())
        said = []
        if self.projector != "never":
            said += self._write_vectors(trainer, model)
        if draws:
            scores = model.window_sums.compute() if model.window_sums is not None else None
            model.window_sums = None
            if trainer.is_global_zero and _can_look(trainer):
                said += self._draw(trainer, model, data, scores)
        if said:
            said.append(f"took {time.perf_counter() - began:.1f} s")
            say("pages", "; ".join(said))
        if self.pictures and not draws:
            say("", f"no pictures without matplotlib: {install_command('lightning_embed[plots]')}")

    def _draw(
        self, trainer: L.Trainer, model: LanguageModel, data: TextDataModule, scores: Any
    ) -> list[str]:
        """The pictures, as files and in TensorBoard; says where they are."""
        made = {}
        if scores is not None and scores.tokens.any():
            windows, split = data.eval_windows(), data.prepared.validation
            sources = split.source[windows.document]
            names = data.prepared.report.sources
            scored = Scored(scores, windows.document, sources, names, data.max_length)
            made["loss by position"] = drawings.loss_by_position(by_position(scored))
        weight = model.network.embedding.weight.detach().float()
        norms = weight.norm(dim=1).numpy(force=True)
        made["norm by frequency"] = drawings.norm_by_frequency(
            norms, self._frequencies(data), PAD_ID
        )
        windows = cut_windows(data.prepared.train.offsets[: WINDOWS_DRAWN + 1], data.max_length)
        windows = windows.only(np.arange(min(WINDOWS_DRAWN, len(windows))))
        layouts = {layout: _padding(windows, data, layout) for layout in ("padded", "packed")}
        made["window lengths"] = drawings.window_lengths(windows.targets, layouts)
        folder = self.folder / "pictures"
        try:
            for name, figure in made.items():
                pixels = drawings.pixels(figure)
                with replacing(folder / f"{name.replace(' ', '_')}.png") as file:
                    figure.savefig(file, format="png")
                for writer in _writers(trainer):
                    step = trainer.global_step
                    writer.add_image(f"pictures/{name}", pixels, step, dataformats="HWC")
        except OSError as error:
            say("warning", f"pictures are not written: {error}")
            return []
        return [f"{len(made)} pictures in {folder}"]

    def _write_vectors(self, trainer: L.Trainer, model: LanguageModel) -> list[str]:
        """The projector's files; says how many vectors they have."""
        if not (_writers(trainer) and _can_look(trainer)):
            return []
        data: TextDataModule = trainer.datamodule  # type: ignore[attr-defined]
        counts = self._frequencies(data)
        ids = projector.chosen(counts)
        vectors = model.network.embedding.weight.detach()[torch.from_numpy(ids)].float()
        try:
            for logger in _boards(trainer):
                folder = Path(logger.log_dir)
                projector.write_tokens(folder, data.prepared.tokenizer, ids, counts)
                projector.write_vectors(folder, vectors.numpy(force=True), trainer.global_step)
        except OSError as error:
            say("warning", f"vectors for the projector are not written: {error}")
            return []
        return [f"{len(ids):,} vectors for the projector"]

    # Figures -----------------------------------------------------------------------------------

    def _frequencies(self, data: TextDataModule) -> np.ndarray:
        if self._counts is None:
            prepared = data.prepared
            self._counts = projector.frequencies(
                prepared.train.tokens, prepared.tokenizer.vocab_size
            )
        return self._counts

    def _settings(self, trainer: L.Trainer, model: LanguageModel) -> summaries.Flat:
        """What a row of HPARAMS shows of a run; the same columns for every run."""
        data: Any = getattr(trainer, "datamodule", None)
        about: dict[str, Any] = {}
        if isinstance(data, TextDataModule):
            about = {**data.plan_settings, "corpus": data.prepared.report.title}
            about["tokenizer"] = data.text.tokenizer_name
            about["tokenizer_keeps_text"] = data.prepared.report.keeps_text
            about["training_tokens"] = len(data.prepared.train.tokens)
        return summaries.flat(
            {
                "parameters": sum(p.numel() for p in model.network.parameters()),
                "model": dict(model.hparams),
                "data": about,
                "precision": str(trainer.precision),
                "processes": trainer.world_size,
                "machine": self.machine or "unknown",
            }
        )


def _boards(trainer: L.Trainer) -> list[TensorBoardLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def _writers(trainer: L.Trainer) -> list[Any]:
    """Those of TensorBoard's files, on the process that writes them."""
    return [logger.experiment for logger in _boards(trainer)] if trainer.is_global_zero else []


def _named(trainer: L.Trainer) -> list[str]:
    """The sources of a mixture."""
    data: Any = getattr(trainer, "datamodule", None)
    return data.prepared.report.named if isinstance(data, TextDataModule) else []


def _can_look(trainer: L.Trainer) -> bool:
    """Whether one process alone can look at the whole network, and this is the one."""
    return trainer.is_global_zero and not isinstance(trainer.strategy, ModelParallelStrategy)


def _padding(windows: Windows, data: TextDataModule, layout: Layout) -> float:
    """The share of positions that hold no token in an epoch of these windows."""
    settings = replace(data.settings, layout=layout)
    plan = plan_epoch(windows, settings, seed=0, epoch=0)
    return 1 - float(plan.targets.sum()) / max(1, plan.positions())
