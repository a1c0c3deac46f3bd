"""`Dial`: the size of a run that ends in time, for this text on this machine.

1. prepare   the text becomes tokens; refused where that alone takes longer
2. measure   steps of a few shapes, eager, for tenths of a second each (`measuring.py`)
3. choose    the shape, batch and dropout of the lowest predicted loss (`sizing.py`)
4. measure   that one's step over the run's own batches, compiled if the run will be, and all else
             that takes time: evaluations, samples, checkpoints, the end
5. count     the steps that fit
"""

import json
import math
import time
from collections.abc import Callable
from typing import Any

from lightning_embed.commands.measuring import Beside, Measuring
from lightning_embed.commands.options import Options
from lightning_embed.console import BEGAN, duration, say, short
from lightning_embed.data.datamodule import TextDataModule
from lightning_embed.errors import UserError
from lightning_embed.model.compiling import compiling_saves, why_not_compile
from lightning_embed.tokens.prepared import data_key
from lightning_embed.tokens.preparing_time import preparation_seconds
from lightning_embed.tokens.token_files import is_prepared
from lightning_embed.training.rehearsal import without_trace
from lightning_embed.training.sizing import (
    USEFUL_PASSES,
    Cost,
    Kept,
    Shape,
    Size,
    Text,
    choose,
    learning_rates,
)
from lightning_embed.watching.summary import xz_bits_per_byte

# Seconds of a run that are not measured here
BEGINNING = 1.5  # from the choice to the first step
ENDING = 2.0  # from the last evaluation to the end of the program
MEASURING = 0.06  # of the time, at most
USUAL_WIDTH = 128  # until one is chosen
COMPILING_TAKES = 7.0  # times as long as starting the program took, both being Python's work

LEAST_BYTES = 1000  # of training text
QUICK_TOKENS = 8192  # at least that a validation while training looks at
VALIDATIONS = 10  # at most
FEWEST_STEPS = 10
SAVE_EVERY = 30.0  # seconds


class Dial:
    """Decides on one run.

    Args:
        seconds: from the start of the program to its end.
        options: of the run.
        build: makes the data module of the settings.
    """

    def __init__(
        self, seconds: float, options: Options, build: Callable[[], TextDataModule]
    ) -> None:
        self.seconds, self.options, self.build = seconds, options, build
        self.measuring = Measuring(options.config)
        self.compile_seconds = COMPILING_TAKES * (time.perf_counter() - BEGAN)
        self.data: TextDataModule

    @property
    def flag(self) -> str:
        """As the user gave it."""
        return f"--minutes {self.seconds / 60:g}"

    @property
    def left(self) -> float:
        return self.seconds - (time.perf_counter() - BEGAN)

    # The text --------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the tokens, and what xz makes of the text, now, so that their time is known."""
        if self.left <= 0:
            took = time.perf_counter() - BEGAN
            raise UserError(
                f"{self.flag} is over: starting took {duration(took)}: give more minutes"
            )
        self.data = self.measuring.data = data = self.build()
        if not is_prepared(data.cache_dir / data_key(data.source, **data.tokenizer_asked)):
            takes = preparation_seconds(data.source, **data.tokenizer_asked)
            if takes > self.left:
                raise UserError(
                    f"{self.flag} is less than preparing the text takes, about"
                    f" {duration(takes)} on this machine, once: give more minutes"
                )
        prepared = data.prepared
        report = prepared.report.splits
        size = report["train"].bytes
        if size < LEAST_BYTES or not prepared.validation.n_targets:
            raise UserError(
                f"the text has {size:,} bytes to train on and {report['validation'].bytes:,} held"
                f" out, too little for any model: give {LEAST_BYTES:,} bytes or more"
            )
        xz_bits_per_byte(prepared)
        if self.left <= 0:
            took = time.perf_counter() - BEGAN
            raise UserError(
                f"{self.flag} is over: preparing the text took {duration(took)}; it is kept, so"
                " that the same command has that time now"
            )

    # Sizing ----------------------------------------------------------------------------------

    def size(self) -> None:
        """Choose everything that decides on a run's size.

        Raises:
            UserError: no model fits the memory, or not even a few steps fit the time.
        """
        say("sizing", f"a run of {duration(self.seconds)} from the text and a few timed steps")
        self.prepare()
        keep, prepared = self.options.keep, self.data.prepared
        overlap = keep("data.eval_overlap")
        if overlap is None:
            self.data.eval_overlap = self.data.max_length // 2
            self.options.choose("data.eval_overlap", self.data.eval_overlap)
        batch, rows = keep("data.tokens_per_batch"), keep("data.rows_per_batch")
        if rows is not None:  # a batch has no more, whatever its tokens
            batch = min(batch or math.inf, rows * self.data.max_length)
        kept = Kept(
            keep("model.d_model"),
            keep("model.n_layers"),
            keep("model.n_heads"),
            keep("model.n_kv_heads"),
            batch,
            keep("trainer.max_steps"),
            keep("model.dropout"),
        )
        keep("trainer.max_time")  # which may end the run before
        text = Text(
            max(1, self.data.unique_targets), prepared.tokenizer.vocab_size, self.data.max_length
        )
        with without_trace(self.options["trainer.deterministic"], self.measuring.threads):
            seconds = max(1.0, 0.88 * self.left)
            compiled = self.compiles(seconds, kept.d_model or USUAL_WIDTH)
            if compiled:
                seconds = max(1.0, seconds - self.compile_seconds)

            def cost(shape: Shape, positions: int) -> Cost | None:
                eager = self.measuring.cost(shape, positions)
                saves = compiling_saves(shape.d_model, self.measuring.precision) if compiled else 0
                return eager and eager.times(1 - saves)

            self.measuring.until = time.perf_counter() + MEASURING * self.seconds
            size = choose(seconds, text, kept, cost)
            if size is None:
                raise self.measuring.why_none or UserError(
                    "no width suits --model.n_heads and --model.n_kv_heads: leave one of them out"
                )
            self.fit_steps(size, kept, compiled and self.compiles(size.seconds, size.shape.d_model))
        self.tell()

    def compiles(self, seconds: float, width: int) -> bool:
        """Whether so many seconds of steps at this width are to be compiled."""
        if why_not_compile(self.measuring.device.type) is not None:
            return False
        asked = self.options.keep("model.compile")
        if asked is not None:
            return bool(asked)
        saves = compiling_saves(width, self.measuring.precision)
        return saves * seconds > 1.2 * self.compile_seconds  # which is not sure

    # Counting --------------------------------------------------------------------------------

    def fit_steps(self, size: Size, kept: Kept, compiled: bool) -> None:
        """Measure the chosen size's own step, and choose all that depends on it."""
        options, shape = self.options, size.shape
        at_least = min(10.0, max(0.3, 0.02 * self.seconds))
        rehearsal = self.measuring.rehearsal(shape, size.dropout, size.batch)
        step, first = self.measuring.step(rehearsal, compiled, at_least)
        beside = self.measuring.beside(rehearsal, at_least / 3)
        validations, aside = self.fit_evaluations(beside)
        if compiled and self.measuring.world > 1:
            aside += first  # in the other processes
        # A checkpoint every half minute is lost time, too.
        room = (self.left - BEGINNING - aside - ENDING) * (1 - beside.save / SAVE_EVERY)
        steps = kept.steps or self.steps_in(room, step)
        if kept.steps is not None and abs(steps * step / room - 1) > 0.1:
            ends = duration(self.seconds - room + steps * step)
            say(
                "note",
                f"--trainer.max_steps {steps} wins: the run takes about {ends}, not"
                f" {duration(self.seconds)}",
            )
        lr, muon_lr = learning_rates(size.batch, shape.d_model)
        for name, value in shape._asdict().items():
            options.choose(f"model.{name}", value)
        options.choose("model.dropout", size.dropout)
        options.choose("model.lr", float(f"{lr:.3g}"))
        if options["model.optimizer"] == "muon":
            options.choose("model.muon_lr", float(f"{muon_lr:.3g}"))
        options.choose("model.schedule", "wsd")
        options.choose("model.decay_fraction", 1.0)
        options.choose("model.compile", compiled)
        options.choose("data.tokens_per_batch", size.batch)
        options.choose("trainer.max_steps", steps)
        if validations and options.keep("trainer.val_check_interval") is None:
            options.choose("trainer.val_check_interval", max(1, math.ceil(steps / validations)))
            options.chosen["trainer.check_val_every_n_epoch"] = None  # counted across epochs
        options.choose("checkpoints.every_n_steps", max(1, round(SAVE_EVERY / step)))

    def fit_evaluations(self, beside: Beside) -> tuple[int, float]:
        """How often the run validates, and seconds of all evaluations, samples and checkpoints.

        Validations take a twentieth of the time at most, and there are ten at most. Where the
        held-out text is so long that all of it would take more than a tenth, the end looks at a
        part.
        """
        options, loader = self.options, self.data.eval_dataloader()
        if options["trainer.limit_val_batches"] == 0:
            return 0, beside.save
        whole = len(loader) * beside.batch
        each = whole / int(loader.rows.windows.targets.sum())  # a target
        if options.keep("data.final_eval_tokens") is None and whole > 0.1 * self.seconds:
            whole = 0.1 * self.seconds
            options.choose("data.final_eval_tokens", max(1, int(whole / each)))
        fast = max(QUICK_TOKENS, int(0.002 * self.seconds / each))
        options.choose("data.quick_eval_tokens", fast)
        quick = options.keep("data.quick_eval_tokens") or fast
        look = max(beside.batch, each * min(quick, self.data.prepared.validation.n_targets))
        one = look + beside.sample + beside.save
        count = max(1, min(VALIDATIONS, int(0.05 * self.seconds / one)))
        return count, count * one + whole + beside.sample + beside.save

    def steps_in(self, room: float, step: float) -> int:
        """As many as take `room` seconds, or as help, or as the user's epochs have.

        Raises:
            UserError: hardly any do.
        """
        steps = int(room / step)
        if steps < FEWEST_STEPS:
            needed = self.seconds - room + FEWEST_STEPS * step
            raise UserError(
                f"{self.flag} is too little: {FEWEST_STEPS} steps, with preparing the text and"
                f" evaluating, take {duration(needed)} on this machine"
            )
        unique = self.data.unique_targets
        most = max(FEWEST_STEPS, int(USEFUL_PASSES * unique / self.data.targets_per_step))
        epochs = self.options.keep("trainer.max_epochs")
        whole = (epochs or math.inf) * self.data.batches_per_epoch
        if steps <= min(most, whole):
            return steps
        ends = duration(self.seconds - room + min(most, whole) * step)
        if whole <= most:
            say("note", f"--trainer.max_epochs {epochs} wins: the run ends after about {ends}")
            return int(whole)
        say(
            "note",
            f"{USEFUL_PASSES:.0f} passes over {short(unique)} tokens are all that helps: the run"
            f" ends after about {ends}; more text would use {self.flag}, --trainer.max_steps"
            " trains on",
        )
        return most

    def tell(self) -> None:
        """One line with the choice as flags, and one with what was the user's."""
        options = self.options
        chosen = " ".join(_flag(name, value) for name, value in options.chosen.items())
        say("sized", chosen or "nothing was left to choose")
        if options.kept:
            say("kept", " ".join(_flag(name, options[name]) for name in options.kept))

    # Resuming --------------------------------------------------------------------------------

    def stop_in_time(self, spent: float) -> None:
        """A resumed run keeps its plan and stops when the minutes are over.

        Args:
            spent: seconds of the run so far that its `--trainer.max_time` counts.
        """
        self.prepare()
        model = self.options.config.model
        shape = Shape(model.d_model, model.n_layers, model.n_heads)
        with without_trace(self.options["trainer.deterministic"], self.measuring.threads):
            rehearsal = self.measuring.rehearsal(shape, model.dropout, self.data.settings.tokens)
            beside = self.measuring.beside(rehearsal, 0.3)
        whole = len(self.data.eval_dataloader()) * beside.batch
        ending = whole + beside.sample + 2 * beside.save + ENDING
        room = int(self.left - BEGINNING - ending)
        if room < 1:
            raise UserError(
                f"{self.flag} is too little: beginning and evaluating alone take"
                f" {duration(self.seconds - room)}"
            )
        days, rest = divmod(room + math.ceil(spent), 86_400)
        hours, rest = divmod(rest, 3600)
        limit = f"{days:02}:{hours:02}:{rest // 60:02}:{rest % 60:02}"
        before = self.options["trainer.max_time"]
        self.options.chosen["trainer.max_time"] = limit
        say(
            "note",
            f"the run keeps its plan; {self.flag} stops it: --trainer.max_time {limit}"
            + (f", {duration(spent)} of which are over" if spent else "")
            + (f", in place of {before}" if before else ""),
        )


def _flag(name: str, value: Any) -> str:
    """As a command line takes it."""
    return f"--{name} {value if isinstance(value, str) else json.dumps(value)}"
