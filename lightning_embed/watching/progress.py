"""`Progress`: a bar or lines on the screen while a run trains, and its figures for the loggers.

Lightning's `self.log` at every step costs more than a small model's arithmetic, so figures are
taken at intervals, and only then is a GPU waited for.
"""

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Literal

import lightning as L

from lightning_embed import figures
from lightning_embed.bar import State, fitting, possible, shown
from lightning_embed.console import BEGAN, LABEL, columns, duration, say, short
from lightning_embed.data.batch import Batch
from lightning_embed.training.endings import why_stopped
from lightning_embed.training.lightning_module import LanguageModel
from lightning_embed.training.optim import learning_rates
from lightning_embed.training.run_length import planned_steps
from lightning_embed.watching.meters import graphs_compiled
from lightning_embed.watching.pace import Pace
from lightning_embed.watching.throughput import Throughput

LOG_ENTRIES = 10  # in the loggers, of a run too short for `log_every_n_steps`, at least
VALIDATION_LINES = 5  # about; TensorBoard has them all
LONG = 600  # seconds of a run that is told how to be shorter


class Progress(L.Callback):
    """Shows where the run stands and logs figures every `log_every_n_steps`; what is shown are the
    figures that are logged, or those of the logged interval so far.

    Args:
        throughput: the callback that counts; it must come before this one.
        shows: "lines" as `Pace` says; "bar", a line at the bottom of the terminal, which are lines
            where there is no terminal; "none"; or "lightning", a bar of Lightning's, which is told
            the loss.
        sized: by `--minutes`, which a long run is then not told of.
        clock: seconds, from any beginning.
    """

    def __init__(
        self,
        throughput: Throughput,
        shows: Literal["bar", "lines", "none", "lightning"] = "lines",
        sized: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.throughput = throughput
        self.shows, self.sized = shows, sized
        self.clock = clock
        self.total_steps = 0
        self.every = 50
        self._first_step = 0
        self._seen_step = -1
        self._fit_began = clock()
        self._compile_began: float | None = None
        self._compiling = False
        self._length_said = False
        self._bar, self._bar_shown = ExitStack(), False
        self._loss: float | None = None  # at the last look,
        self._found: dict[str, float] = {}  # as these figures
        self._left: tuple[float, float] | None = None  # seconds to the end, and when that was
        self._validated: float | None = None  # the last validation's loss
        self.recompilations = 0  # graphs compiled after the second step, by any part
        self._graphs = 0
        self._validation_line = -sys.maxsize  # step of the last one shown

    # Hooks -------------------------------------------------------------------------------------

    def on_train_start(self, trainer: L.Trainer, pl_module: LanguageModel) -> None:  # type: ignore[override]
        self.total_steps = planned_steps(trainer)
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        self.every = max(1, min(every, self.total_steps // LOG_ENTRIES))
        self._first_step = self._seen_step = trainer.global_step
        self._fit_began = self.clock()
        self.pace = Pace(self.total_steps, self.every, self._first_step, self.clock)
        self._bar_shown = self.shows == "bar" and possible()
        if self._bar_shown:
            self._bar.enter_context(shown(self._state))
        settled = pl_module.hparams["schedule_steps"]
        if settled < self.total_steps and pl_module.hparams["schedule"] != "constant":
            say(
                "schedule",
                f"is over at step {settled}, as planned when the run began; --model.schedule_steps"
                f" {self.total_steps} stretches it",
            )

    def on_train_batch_start(  # type: ignore[override]
        self, trainer: L.Trainer, pl_module: LanguageModel, batch: Batch, batch_idx: int
    ) -> None:
        if trainer.global_step < 1 or self._compile_began is not None:
            return
        self._compile_began = self.clock()  # it begins after this hook
        if pl_module.eager is None:
            self._compiling = True
            say("compile", "begins; takes some 10 to 80 s, once")
        else:
            say("compile", f"off, training runs eager: {pl_module.eager}")

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
        if done > 2:
            self.recompilations = graphs_compiled() - self._graphs
        if self._bar_shown and (left := self.pace.left(step)) is not None:
            self._left = left, self.clock()
        logs = step % self.every == 0 or step == self.total_steps
        if not (logs or done <= 2 or (self._looks and self.pace.looks(step))):
            return
        loss = pl_module.global_step_loss()  # waits for the device, so that times after it are true
        due = done > 1 and self.pace.due(step)
        found = {}
        if done <= 2:
            self._first_steps(trainer, pl_module, done, loss)
        elif logs:
            found = self.throughput.close_interval()
            self._log(trainer, loss, found)
            if self.shows == "lightning":
                pl_module.log("loss", loss, prog_bar=True, logger=False)
        else:
            found = self.throughput.so_far()
        self._loss, self._found = loss, found or self._found
        if self._looks and done > 1 and due:
            self._say_progress(step, loss, found)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        step = trainer.global_step
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        values = trainer.callback_metrics
        if "val/loss" in values:
            self._validated = float(values["val/loss"])
        if step - self._validation_line < self.total_steps // VALIDATION_LINES:
            return
        self._validation_line = step
        if "val/bits_per_byte" in values and self._looks:
            say(
                "",
                f"validation at step {step}: loss {values['val/loss']:.3f}"
                f"  {values['val/bits_per_byte']:.3f} bits/byte",
            )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._bar.close()
        if self.recompilations:
            say("note", f"{self.recompilations} graphs were compiled anew while training")
        if trainer.global_step < self.total_steps and trainer.should_stop:
            say("note", f"stopped before the planned end: {why_stopped(trainer)}")
        say(
            "finished",
            f"{trainer.global_step - self._first_step} steps in"
            f" {duration(self.clock() - self._fit_began)}",
        )

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._bar.close()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._bar.close()  # a signal is no exception to Lightning

    # Figures and lines -------------------------------------------------------------------------

    def _first_steps(
        self, trainer: L.Trainer, pl_module: LanguageModel, done: int, loss: float
    ) -> None:
        """The first is eager and the second may compile, or the first of a resume: their speed says
        nothing."""
        step = trainer.global_step
        if step == 1 or step % self.every == 0:  # as in a run that was not interrupted
            self._log(trainer, loss, {})
        self.throughput.skip()
        self._graphs = graphs_compiled()
        if done == 1:
            since = duration(time.perf_counter() - BEGAN)
            self._line(f"step {step}  loss {loss:.2f}  first loss {since} after start")
        compiled = self._compile_began is not None and pl_module.eager is None
        if compiled and step == max(2, self._first_step + 1):
            self._compiling = False
            seconds = self.clock() - (self._compile_began or 0.0)
            say("compile", f"took {seconds:.0f} s; Ctrl-C stops, --ckpt_path last goes on")
            self.pace.settle(step)
        elif done == 1:
            self.pace.settle(step)

    def _log(self, trainer: L.Trainer, loss: float, found: dict[str, float]) -> None:
        """Hand the loggers the figures of an interval, which may say nothing of the speed."""
        values = {
            figures.TRAIN_LOSS: loss,
            figures.RECOMPILATIONS: self.recompilations,
            **learning_rates(trainer.optimizers[0]),
            **self.throughput.tagged(found),
        }
        figures.log(trainer, values)

    def _say_progress(self, step: int, loss: float, found: dict[str, float]) -> None:
        left = self.pace.left(step) if step < self.total_steps else None
        if left is not None and not self._length_said:
            self._say_length(left)
        parts = [f"{100 * step // max(1, self.total_steps)} %", *self._parts(loss, left, found)]
        self._line(fitting([self._place(step), *parts], columns() - LABEL))

    def _say_length(self, left: float) -> None:
        self._length_said = True
        text = f"about {duration(left)} from now"
        if left > LONG and not self.sized:
            does = "stops after" if self._first_step else "sizes a run for"
            text += f"; --minutes {LONG // 60} {does} {LONG // 60} minutes"
        say("length", text)

    def _state(self) -> State:
        """What the bar shows."""
        now, left = self.clock(), None
        if self._left is not None and self._seen_step < self.total_steps:
            left = max(0.0, self._left[0] - (now - self._left[1]))
        parts = self._parts(self._loss, left, self._found, self._validated)
        if self._compiling:
            parts.append(f"compiling {duration(now - (self._compile_began or now))}")
        share = self._seen_step / max(1, self.total_steps)
        return State(share, [self._place(self._seen_step), *parts])

    def _place(self, step: int) -> str:
        return f"step {step}/{self.total_steps}"

    def _parts(
        self,
        loss: float | None,
        left: float | None,
        found: dict[str, float],
        validated: float | None = None,
    ) -> list[str]:
        """What matters most comes first; a line has as much of it as fits."""
        parts = [] if loss is None else [f"loss {loss:.3f}"]
        if left is not None:
            parts.append(f"ETA {duration(left)}")
        if found:
            parts.append(f"{short(found['tokens_per_s'])} real tok/s")
        if validated is not None:
            parts.append(f"val {validated:.3f}")
        if found:
            parts.append(f"padding {100 * found['padding']:.1f} %")
            if "mfu" in found:
                parts.append(f"MFU {100 * found['mfu']:.0f} %")
            parts.append(f"data wait {100 * found['data_wait']:.0f} %")
            if "peak_memory" in found:
                parts.append(f"{found['peak_memory'] / 1e9:.1f} GB")
        return parts

    @property
    def _looks(self) -> bool:
        """Whether there is somebody to look; the same on all processes."""
        return self.shows in ("bar", "lines")

    def _line(self, text: str) -> None:
        if self._looks and not self._bar_shown:
            say("", text)
