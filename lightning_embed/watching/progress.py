"""`Progress`: lines on the screen while a run trains, and its figures for the loggers.

Lightning's `self.log` at every step costs more than a small model's arithmetic, so figures are
taken at intervals, and only then is a GPU waited for.
"""

import shutil
import sys
import time
from typing import Any

import lightning as L

from lightning_embed import figures
from lightning_embed.console import BEGAN, duration, say, short, write
from lightning_embed.data.batch import Batch
from lightning_embed.processes import is_main_process
from lightning_embed.training.endings import why_stopped
from lightning_embed.training.lightning_module import LanguageModel
from lightning_embed.training.run_length import planned_steps
from lightning_embed.watching.meters import graphs_compiled
from lightning_embed.watching.throughput import Throughput

LINES = 10  # progress lines in a whole run
VALIDATION_LINES = 5  # about; TensorBoard has them all


class Progress(L.Callback):
    """Prints a line for every tenth of the run and logs figures every `log_every_n_steps`.

    On a terminal a last line, rewritten at each logging, shows where the run stands.

    Args:
        throughput: the callback that counts; it must come before this one.
        lines: False where a progress bar of Lightning's shows where the run stands; the loss
            stands in it then.
    """

    def __init__(self, throughput: Throughput, lines: bool = True) -> None:
        self.throughput = throughput
        self.lines = lines
        self.total_steps = 0
        self.every = 50
        self._first_step = 0
        self._seen_step = -1
        self._fit_began = self._usual_since = time.perf_counter()
        self._compile_began: float | None = None
        self._live = False
        self.recompilations = 0  # graphs compiled after the second step, by any part
        self._graphs = 0
        self._validation_line = -sys.maxsize  # step of the last one shown

    # Hooks -------------------------------------------------------------------------------------

    def on_train_start(self, trainer: L.Trainer, pl_module: LanguageModel) -> None:  # type: ignore[override]
        self.total_steps = planned_steps(trainer)
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        self.every = max(1, min(every, self.total_steps // LINES))  # short runs have lines too
        self._first_step = self._seen_step = trainer.global_step
        self._fit_began = time.perf_counter()
        settled = pl_module.hparams["schedule_steps"]
        if settled < self.total_steps and pl_module.hparams["schedule"] != "constant":
            say(
                "schedule",
                f"is over at step {settled}, as planned when the run began; --model.schedule_steps"
                f" {self.total_steps} stretches it",
            )

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        if trainer.global_step == max(1, self._first_step) and self._compile_began is None:
            self._compile_began = time.perf_counter()

    def on_train_batch_end(  # type: ignore[override]
        self,
        trainer: L.Trainer,
        pl_module: LanguageModel,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        step = trainer.global_step
        if step == self._seen_step:
            return  # in the middle of accumulation
        self._seen_step = step
        done = step - self._first_step
        if done <= 2:
            self._first_steps(trainer, pl_module, done)
            self._usual_since = time.perf_counter()
            self.throughput.skip()
            self._graphs = graphs_compiled()
            return
        self.recompilations = graphs_compiled() - self._graphs
        if step % self.every == 0 or step == self.total_steps:
            self._interval(trainer, pl_module, step)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        step = trainer.global_step
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if step - self._validation_line < self.total_steps // VALIDATION_LINES:
            return
        self._validation_line = step
        values = trainer.callback_metrics
        if "val/bits_per_byte" in values:
            self._line(
                f"validation at step {step}: loss {values['val/loss']:.3f}"
                f"  {values['val/bits_per_byte']:.3f} bits/byte"
            )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._clear()
        if self.recompilations:
            say("note", f"{self.recompilations} graphs were compiled anew while training")
        if trainer.global_step < self.total_steps and trainer.should_stop:
            say("note", f"stopped before the planned end: {why_stopped(trainer)}")
        say(
            "finished",
            f"{trainer.global_step - self._first_step} steps in"
            f" {duration(time.perf_counter() - self._fit_began)}",
        )

    # Lines -------------------------------------------------------------------------------------

    def _first_steps(self, trainer: L.Trainer, pl_module: LanguageModel, done: int) -> None:
        """The first is eager and the second may compile: their speed says nothing."""
        step = trainer.global_step
        loss = pl_module.global_step_loss()
        if step == 1 or step % self.every == 0:  # as in a run that was not interrupted
            figures.log(trainer, {"train/loss": loss})
        if done == 1:
            since = duration(time.perf_counter() - BEGAN)
            self._line(f"step {step}  loss {loss:.2f}  first loss {since} after start")
        else:
            self._compiled(pl_module)

    def _compiled(self, pl_module: LanguageModel) -> None:
        reason = pl_module.eager
        if reason is not None:
            say("compile", f"off, training runs eager: {reason}")
        elif self._compile_began is not None:
            seconds = time.perf_counter() - self._compile_began
            say("compile", f"{seconds:.0f} s, once; Ctrl-C stops, --ckpt_path last goes on")

    def _interval(self, trainer: L.Trainer, pl_module: LanguageModel, step: int) -> None:
        loss = pl_module.global_step_loss()  # waits for the device, so that times after it are true
        found = self.throughput.close_interval()
        values = {"train/loss": loss, "train/lr": trainer.optimizers[0].param_groups[-1]["lr"]}
        if found:
            values["throughput/real_tokens_per_s"] = found["tokens_per_s"]
            values["throughput/data_wait"] = found["data_wait"]
            values["padding/share"] = found["padding"]
            for name in ("flops_per_s", "mfu", "peak_memory"):
                if name in found:
                    values[f"throughput/{name}"] = found[name]
        values["compile/recompilations"] = self.recompilations
        figures.log(trainer, values)
        if not self.lines:
            pl_module.log("loss", loss, prog_bar=True, logger=False)
            return
        line = self._text(step, loss, found)
        every = max(self.every, self.total_steps // LINES)
        if step % every < self.every or step == self.total_steps:
            self._line(line)
        elif sys.stdout.isatty() and is_main_process():
            room = shutil.get_terminal_size().columns - 1  # a wrapped line cannot be rewritten
            write(f"\r\033[K{'':9}{line}"[: room + len("\r\033[K")])
            self._live = True

    def _text(self, step: int, loss: float, found: dict[str, float]) -> str:
        parts = [f"step {step}/{self.total_steps}", f"{100 * step // max(1, self.total_steps)} %"]
        parts.append(f"loss {loss:.3f}")
        if found:
            parts.append(f"{short(found['tokens_per_s'])} real tok/s")
            parts.append(f"padding {100 * found['padding']:.1f} %")
            parts.append(f"data wait {100 * found['data_wait']:.0f} %")
            if "mfu" in found:
                parts.append(f"MFU {100 * found['mfu']:.0f} %")
            if "peak_memory" in found:
                parts.append(f"{found['peak_memory'] / 1e9:.1f} GB")
        done = step - self._first_step - 2  # what compiling took does not come again
        left = (time.perf_counter() - self._usual_since) / done * (self.total_steps - step)
        parts.append(f"ETA {duration(left)}")
        return "  ".join(parts)

    def _line(self, text: str) -> None:
        if not self.lines:
            return
        self._clear()
        say("", text)

    def _clear(self) -> None:
        if self._live:
            write("\r\033[K")
            self._live = False
