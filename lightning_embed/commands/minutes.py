"""`fit --minutes N`: one dial that sizes a run for this text on this machine, so that it ends N
minutes after the command was given.

1. prepare   the text becomes tokens; refused where that alone takes longer
2. measure   steps of a few shapes, eager, for tenths of a second each (`rehearsal.py`)
3. choose    the shape, batch and dropout of the lowest predicted loss (`sizing.py`)
4. measure   that one's step over the run's own batches, compiled if the run will be, and all else
             that takes time: evaluations, samples, checkpoints, the end
5. count     the steps that fit

What was chosen is written into the settings as if the user had: the run's `config.yaml` needs no
dial and trains the same. What the user has set stays, and the rest is fitted round it.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from lightning_embed.commands.parser import expand
from lightning_embed.console import BEGAN, duration, say, short
from lightning_embed.data.batch import Batch, PlanLoader
from lightning_embed.data.datamodule import TextDataModule
from lightning_embed.data.prepared import data_key
from lightning_embed.data.preparing_time import preparation_seconds
from lightning_embed.data.token_files import is_prepared
from lightning_embed.errors import UserError, one_line, require_range
from lightning_embed.hardware import require_memory
from lightning_embed.model.compiling import why_not_compile
from lightning_embed.model.decoder import DecoderLM
from lightning_embed.processes import is_main_process, started_from_outside
from lightning_embed.training.generate import generate_texts
from lightning_embed.training.rehearsal import Rehearsal, full_rows, without_trace
from lightning_embed.training.sizing import (
    MOST_PASSES,
    Cost,
    Kept,
    Shape,
    Size,
    Text,
    choose,
    learning_rates,
    work,
)
from lightning_embed.watching.summary import xz_bits_per_byte

HANDED_ON = "LIGHTNING_EMBED_MINUTES"  # the choice, from the main process to those it starts
A_YEAR = 525_600.0

# Seconds of a run that are not measured here
BEGINNING = 1.5  # from the choice to the first step
ENDING = 1.0  # from the last evaluation to the end of the program
EACH_STEP = 0.0012  # of Lightning's loop and the callbacks, ...
OF_A_STEP = 0.01  # ... and by how much they slow the step itself
COMPILING_SAVES = 0.3  # of a step's time
COMPILING_TAKES = 7.0  # times as long as starting the program took, both being Python's work
COMPILING_PAYS_FROM = 4.0  # times as long as it takes

LEAST_BYTES = 1000  # of training text
QUICK_TOKENS = 8192  # at least that a validation while training looks at
VALIDATIONS = 10  # at most
FEWEST_STEPS = 10
SAVE_EVERY = 30.0  # seconds


class Options:
    """The settings of a command, by dotted names, and which of them the user gave.

    Args:
        config: parsed settings, changed in place.
        args: the command line.
        default: of an option.
    """

    def __init__(self, config: Any, args: list[str], default: Callable[[str], Any]) -> None:
        self.config, self.default = config, default
        self._named = named_in(args)
        self.chosen: dict[str, Any] = {}
        self.kept: list[str] = []

    def __getitem__(self, name: str) -> Any:
        return self.config[name]

    def given(self, name: str) -> Any:
        """The user's value, or None: an option's own way of saying "choose" is no value."""
        value = self.config[name]
        if value in (None, -1, "auto"):
            return None
        return value if name in self._named or value != self.default(name) else None

    def keep(self, name: str) -> Any:
        """The user's value, or None, which is then to be chosen."""
        value = self.given(name)
        if value is not None and name not in self.kept:
            self.kept.append(name)
        return value

    def choose(self, name: str, value: Any) -> None:
        """Unless the user has."""
        if self.keep(name) is None:
            self.chosen[name] = value

    def write(self) -> None:
        for name, value in self.chosen.items():
            self.config[name] = value


def named_in(args: list[str]) -> set[str]:
    """Options that stand on a command line or in its settings files."""
    found = set[str]()
    for flag, value in zip(args, [*args[1:], ""], strict=True):
        name, _, joined = flag.partition("=")
        if name in ("--config", "-c"):
            path = Path(expand(joined or value))
            settings = yaml.safe_load(path.read_text("utf-8")) if path.is_file() else None
            found |= set(_dotted(settings or {}))
        elif name.startswith("--"):
            found.add(name.removeprefix("--").removesuffix("+"))
    return found


def _dotted(settings: dict[str, Any], before: str = "") -> Iterator[str]:
    for key, value in settings.items():
        yield f"{before}{key}"
        if isinstance(value, dict):
            yield from _dotted(value, f"{before}{key}.")


def set_minutes(
    config: Any, args: list[str], default: Callable[[str], Any], build: Callable[[], TextDataModule]
) -> None:
    """Replace `--minutes` in the settings by the sizes it stands for.

    Args:
        config: all settings of `fit`, machine's choices made; changed in place.
        args: the command line.
        default: of an option by its dotted name.
        build: makes the data module of the settings.

    Raises:
        UserError: the minutes, the text or the way of starting processes do not allow it.
    """
    minutes = config.minutes
    if minutes is None:
        return
    require_range("--minutes", minutes, above=0, at_most=A_YEAR)
    options = Options(config, args, default)
    if HANDED_ON in os.environ and not is_main_process():
        options.chosen = json.loads(os.environ[HANDED_ON])
    else:
        refuse_launchers(config.trainer)
        dial = Dial(60 * minutes, options, build)
        if config.ckpt_path is not None:
            dial.stop_in_time()
        else:
            dial.size()
        if processes(config.trainer) > 1:
            os.environ[HANDED_ON] = json.dumps(options.chosen)
    options.write()
    config.minutes = None


def forget() -> None:
    """What was handed on is of one run."""
    if is_main_process():
        os.environ.pop(HANDED_ON, None)


def refuse_launchers(trainer: Any) -> None:
    """Processes that start by themselves would each decide.

    Raises:
        UserError: with the way that there is.
    """
    launcher = started_from_outside()
    if launcher is None and int(trainer.num_nodes) > 1:
        launcher = f"--trainer.num_nodes {trainer.num_nodes}"
    if launcher is not None:
        raise UserError(
            f"--minutes is decided by one process, and {launcher} starts several: run it with one"
            " for a moment, then give its config.yaml to all with --config"
        )


def processes(trainer: Any) -> int:
    """That train, on this host."""
    devices = trainer.devices
    if isinstance(devices, str) and devices.lstrip("-").isdigit():
        devices = int(devices)
    if isinstance(devices, str | list) and devices != "auto":
        return len(devices if isinstance(devices, list) else devices.split(","))
    if isinstance(devices, int) and devices >= 0:
        return max(1, devices)
    return max(1, torch.cuda.device_count()) if trainer.accelerator in ("cuda", "gpu") else 1


class Beside(NamedTuple):
    """Seconds of what a run does beside its steps."""

    batch: float  # an evaluation's batch
    sample: float  # the samples of a validation
    save: float  # a checkpoint


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
        trainer = options.config.trainer
        self.world = processes(trainer)
        self.parts = int(trainer.accumulate_grad_batches)
        self.precision = str(trainer.precision or "32-true")
        self.device = torch.device("cuda" if trainer.accelerator in ("cuda", "gpu") else "cpu")
        self.threads = torch.get_num_threads()
        if self.device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
            self.threads = max(1, self.threads // self.world)
        self.compiling = COMPILING_TAKES * (time.perf_counter() - BEGAN)
        self.data: TextDataModule
        self.why_none: UserError | None = None  # the last shape that cannot run here
        self.measured: tuple[float, int] | None = None  # of the last one: seconds, and its work
        self.measuring_since = 0.0

    @property
    def minutes(self) -> str:
        return f"--minutes {self.seconds / 60:g}"

    @property
    def left(self) -> float:
        return self.seconds - (time.perf_counter() - BEGAN)

    # The text --------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the tokens, and what xz makes of the text, now, so that their time is known."""
        self.data = data = self.build()
        asked: dict[str, Any] = {"tokenizer": data.tokenizer_name, "vocab_size": data.vocab_size}
        if not is_prepared(data.cache_dir / data_key(data.source, **asked)):
            takes = preparation_seconds(data.source, data.tokenizer_name, data.vocab_size)
            if takes > self.left:
                raise UserError(
                    f"{self.minutes} is less than preparing the text takes, about"
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
                f"{self.minutes} is over: preparing the text took {duration(took)}; it is kept, so"
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
        kept = Kept(
            keep("model.d_model"),
            keep("model.n_layers"),
            keep("model.n_heads"),
            keep("data.tokens_per_batch"),
            keep("trainer.max_steps"),
            keep("model.dropout"),
        )
        text = Text(
            max(1, prepared.train.n_targets), prepared.tokenizer.vocab_size, self.data.max_length
        )
        with without_trace(self.options["trainer.deterministic"], self.threads):
            seconds = 0.88 * self.left
            compiled = self.compiles(seconds)
            if compiled:
                seconds = (seconds - self.compiling) / (1 - COMPILING_SAVES)
            self.measuring_since = time.perf_counter()
            size = choose(seconds, text, kept, self.cost)
            if size is None:
                raise self.why_none or UserError("no width suits --model.n_heads")
            self.fit_steps(size, kept, compiled and self.compiles(size.seconds))
        self.tell()

    def compiles(self, seconds: float) -> bool:
        """Whether a run of so many seconds of steps is to be compiled."""
        if why_not_compile(self.device.type) is not None:
            return False
        asked = self.options.keep("model.compile")
        if asked is not None:
            return bool(asked)
        return seconds > COMPILING_PAYS_FROM * self.compiling

    def settings(self, shape: Shape, dropout: float = 0.0) -> dict[str, Any]:
        """Of `LanguageModel`."""
        given = dict(self.options.config.model.as_dict())
        known = {"vocab_size": self.data.prepared.tokenizer.vocab_size, "dropout": dropout}
        return given | {"max_length": self.data.max_length} | known | shape._asdict()

    def cost(self, shape: Shape, positions: int) -> Cost | None:
        """Seconds of a step of this shape, from two batch sizes around `positions`."""
        vocabulary = self.data.prepared.tokenizer.vocab_size
        share = 0.06 * self.seconds - (time.perf_counter() - self.measuring_since)
        if self.measured is not None:
            took, before = self.measured
            if 5 * took * work(shape, vocabulary) / before > share:
                return None  # measuring alone would take too long
        settings = self.settings(shape)
        network = {k: v for k, v in settings.items() if k in DecoderLM.settings()}
        try:
            require_memory(DecoderLM.parameter_count(settings["vocab_size"], network))
            rehearsal = Rehearsal(settings, self.precision, self.device)
            width = self.data.max_length
            rows = max(1, positions // width // self.world // self.parts)
            fewer, more = max(1, rows // 2), max(2, rows)
            each = min(0.3, 0.004 * self.seconds)
            seconds = []
            for n_rows in (fewer, more):
                batches = repeat(full_rows(n_rows, width, settings["vocab_size"]))
                rehearsal.seconds(rehearsal.train, batches, 0.0, fewest=1)
                seconds.append(rehearsal.seconds(rehearsal.train, batches, each, fewest=2))
        except (UserError, torch.OutOfMemoryError) as error:
            self.why_none = UserError(one_line(error))
            return None
        positions = more * width
        self.measured = seconds[1], work(shape, vocabulary)
        slope = (seconds[1] - seconds[0]) / (positions - fewer * width)
        slope = max(slope, 0.3 * seconds[1] / positions)  # where noise makes them too alike
        fixed = max(0.0, seconds[1] - slope * positions)
        return Cost(
            self.parts * fixed + EACH_STEP + self.meeting(rehearsal),
            slope / self.world * (1 + OF_A_STEP),
        )

    def meeting(self, rehearsal: Rehearsal) -> float:
        """Seconds in which processes exchange a step's gradients, roughly: gigabytes a second."""
        if self.world == 1:
            return 0.0
        size = 4 * sum(p.numel() for p in rehearsal.network.parameters())
        return size / (1e9 if self.device.type == "cpu" else 5e10)

    # Counting --------------------------------------------------------------------------------

    def loader(self, batch: int) -> PlanLoader:
        """The run's own batches, as its first process has them."""
        data = self.data
        data.settings = replace(data.settings, tokens=batch)
        loader = data.train_dataloader()
        loader.world_size, loader.accumulate = self.world, self.parts
        return loader

    def evaluating(self, rehearsal: Rehearsal, at_least: float) -> Beside:
        """Measure what is done beside steps."""
        batches = self.data.eval_dataloader()
        rehearsal.module.eval()
        rehearsal.seconds(rehearsal.score, batches, 0.0, fewest=1)
        batch = rehearsal.seconds(rehearsal.score, batches, at_least, fewest=2)
        samples = self.options.config.samples
        began = time.perf_counter()
        if samples.max_new_tokens:
            rehearsal.module.tokenizer_json = self.data.prepared.tokenizer.to_json()
            generate_texts(
                rehearsal.module,
                samples.prompts or [""],
                max_new_tokens=samples.max_new_tokens,
                max_length=self.data.max_length,
                temperature=samples.temperature,
            )
        sample = time.perf_counter() - began
        rehearsal.module.train()
        size = 12 * sum(p.numel() for p in rehearsal.network.parameters())
        return Beside(batch, sample, 0.03 + size / 3e8)

    def fit_steps(self, size: Size, kept: Kept, compiled: bool) -> None:
        """Measure the chosen size's own step, and choose all that depends on it."""
        options, shape = self.options, size.shape
        rehearsal = Rehearsal(self.settings(shape, size.dropout), self.precision, self.device)
        batches = iter(self._forever(self.loader(size.batch)))
        began = time.perf_counter()
        rehearsal.warm_up(batches, compiled)
        compiling = time.perf_counter() - began
        at_least = min(10.0, max(0.3, 0.02 * self.seconds))
        micro = rehearsal.seconds(rehearsal.train, batches, at_least, fewest=5)
        step = micro * self.parts * (1 + OF_A_STEP) + EACH_STEP + self.meeting(rehearsal)
        beside = self.evaluating(rehearsal, at_least / 3)
        validations, aside = self.fit_evaluations(beside)
        if compiled and self.world > 1:
            aside += compiling  # in the other processes
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
        options.choose("model.muon_lr", float(f"{muon_lr:.3g}"))
        options.choose("model.schedule", "wsd")
        options.choose("model.decay_fraction", 1.0)
        options.choose("model.compile", compiled)
        options.choose("data.tokens_per_batch", size.batch)
        options.choose("trainer.max_steps", steps)
        if options.keep("trainer.val_check_interval") is None:
            options.choose("trainer.val_check_interval", max(1, math.ceil(steps / validations)))
            options.chosen["trainer.check_val_every_n_epoch"] = None  # counted across epochs
        options.choose("checkpoints.every_n_steps", max(1, round(SAVE_EVERY / step)))

    def fit_evaluations(self, beside: Beside) -> tuple[int, float]:
        """How often the run validates, and seconds of all evaluations, samples and checkpoints.

        Validations take a twentieth of the time at most, and there are ten at most. Where the
        held-out text is so long that all of it would take more than a tenth, the end looks at a
        part.
        """
        options, targets = self.options, max(1, self.data.prepared.validation.n_targets)
        n_batches = len(self.data.eval_dataloader())
        whole = n_batches * beside.batch
        if whole > 0.1 * self.seconds:
            options.choose("data.final_eval_tokens", int(0.1 * self.seconds * targets / whole))
            share = (options.keep("data.final_eval_tokens") or 0) / targets
            whole *= min(1.0, share or 0.1 * self.seconds / whole)
        fast = max(QUICK_TOKENS, int(0.002 * self.seconds * targets / (n_batches * beside.batch)))
        options.choose("data.quick_eval_tokens", fast)
        quick = options.keep("data.quick_eval_tokens") or fast
        looks = max(1, round(n_batches * min(1.0, quick / targets))) * beside.batch
        one = looks + beside.sample + beside.save
        count = max(1, min(VALIDATIONS, int(0.05 * self.seconds / one)))
        return count, count * one + whole + beside.sample + beside.save

    def steps_in(self, room: float, step: float) -> int:
        """As many as take `room` seconds, or as help.

        Raises:
            UserError: hardly any do.
        """
        steps = int(room / step)
        if steps < FEWEST_STEPS:
            needed = self.seconds - room + FEWEST_STEPS * step
            raise UserError(
                f"{self.minutes} is too little: {FEWEST_STEPS} steps, with preparing the text and"
                f" evaluating, take {duration(needed)} on this machine"
            )
        unique = self.data.prepared.train.n_targets
        most = max(FEWEST_STEPS, int(MOST_PASSES * unique / self.data.targets_per_step))
        if steps <= most:
            return steps
        ends = duration(self.seconds - room + most * step)
        say(
            "note",
            f"{MOST_PASSES:.0f} passes over {short(unique)} tokens are all that helps: the run ends"
            f" after about {ends}; more text would use {self.minutes}, --trainer.max_steps trains"
            " on",
        )
        return most

    @staticmethod
    def _forever(loader: PlanLoader) -> Iterator[Batch]:
        epoch = 0
        while True:
            loader.set_epoch(epoch)
            yield from loader
            epoch += 1

    def tell(self) -> None:
        """One line with the choice as flags, and one with what was the user's."""
        options = self.options
        words = [
            f"--{k} {'null' if v is None else str(v).lower() if isinstance(v, bool) else v}"
            for k, v in options.chosen.items()
        ]
        say("sized", " ".join(words))
        if options.kept:
            say("kept", " ".join(f"--{name} {options[name]}" for name in options.kept))

    # Resuming --------------------------------------------------------------------------------

    def stop_in_time(self) -> None:
        """A resumed run keeps its plan and stops when the minutes are over."""
        self.prepare()
        model = self.options.config.model
        shape = Shape(model.d_model, model.n_layers, model.n_heads)
        with without_trace(self.options["trainer.deterministic"], self.threads):
            rehearsal = Rehearsal(self.settings(shape, model.dropout), self.precision, self.device)
            beside = self.evaluating(rehearsal, 0.3)
        whole = len(self.data.eval_dataloader()) * beside.batch
        ending = whole + beside.sample + 2 * beside.save + ENDING
        room = int(self.left - BEGINNING - ending)
        if room < 1:
            raise UserError(
                f"{self.minutes} is too little: beginning and evaluating alone take"
                f" {duration(self.seconds - room)}"
            )
        days, rest = divmod(room, 86_400)
        hours, rest = divmod(rest, 3600)
        limit = f"{days:02}:{hours:02}:{rest // 60:02}:{rest % 60:02}"
        self.options.chosen["trainer.max_time"] = limit
        say("note", f"the run keeps its plan; {self.minutes} stops it: --trainer.max_time {limit}")
