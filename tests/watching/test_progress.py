"""`Progress`: what is on the screen, by a clock that the tests drive, and what the loggers get."""

import re
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch

from lightning_embed import figures
from lightning_embed.bar import drawing_width, fitting
from lightning_embed.data.batch import Batch
from lightning_embed.watching import throughput
from lightning_embed.watching.pace import Pace
from lightning_embed.watching.progress import Progress
from lightning_embed.watching.throughput import Throughput

MOST_LINES = 40
Shows = Literal["bar", "lines", "none", "lightning"]


@pytest.fixture(autouse=True)
def uncut_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here they are cut."""
    monkeypatch.delenv("COLUMNS", raising=False)


class Run:
    """A run of made-up steps.

    Args:
        seconds: of a step.
        compiling: seconds that the second step, or the first of a resume, takes longer; None is
            eager.
        of_clock: how fast this process' clock goes.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *,
        total: int,
        seconds: float,
        compiling: float | None = None,
        first_step: int = 0,
        every: int = 50,
        shows: Shows = "lines",
        sized: bool = False,
        of_clock: float = 1.0,
    ) -> None:
        self.now, self.reduced = 1000.0, list[int]()
        self.logged: list[tuple[int, dict[str, float]]] = []
        monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=self.clock))
        monkeypatch.setattr(throughput, "matrix_rate", lambda device, dtype: 1e9)
        monkeypatch.setattr(throughput, "peak_memory", lambda device: 10**9)
        self.trainer: Any = SimpleNamespace(
            **{"global_step": first_step, "max_steps": total, "max_epochs": None},
            **{"log_every_n_steps": every, "accumulate_grad_batches": 1, "world_size": 1},
            **{"precision": "32-true", "should_stop": False, "train_dataloader": None},
            optimizers=[SimpleNamespace(param_groups=[{"rule": "adamw", "lr": 0.1}])],
            loggers=[SimpleNamespace(log_metrics=self.log)],
        )
        self.module: Any = SimpleNamespace(
            **{"device": torch.device("cpu"), "global_step_loss": self.loss, "log": self.ignore},
            hparams={"schedule_steps": total, "schedule": "wsd"},
            network=SimpleNamespace(training_flops=lambda tokens, pairs: 6.0 * tokens),
            eager="no compiler" if compiling is None else None,
        )
        counter = Throughput()
        callbacks = counter, Progress(counter, shows, sized, self.clock)
        self.call(callbacks, "on_train_start")
        empty = torch.zeros(0)
        batch = Batch(empty, empty, empty, empty, 90, 100, 0)
        for step in range(first_step, total):
            self.call(callbacks, "on_train_batch_start", batch, step)
            self.now += seconds * of_clock
            if step == max(1, first_step):
                self.now += (compiling or 0.0) * of_clock
            self.trainer.global_step += 1
            self.call(callbacks, "on_train_batch_end", None, batch, step)
        self.call(callbacks, "on_train_end")

    def call(self, callbacks: tuple[Any, ...], hook: str, *arguments: Any) -> None:
        for callback in callbacks:
            getattr(callback, hook)(self.trainer, self.module, *arguments)

    def clock(self) -> float:
        return self.now

    def loss(self) -> float:
        self.reduced.append(self.trainer.global_step)
        return 3.0

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((step, values))

    def ignore(self, *_: Any, **__: Any) -> None:
        pass


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [re.sub(" +", " ", line).strip() for line in capsys.readouterr().out.splitlines()]


def test_slow_steps_eager(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No line waits for `log_every_n_steps`: that would be after 1,000 seconds."""
    Run(monkeypatch, total=100, seconds=20)
    lines = said(capsys)
    assert lines[0].startswith("step 1 loss 3.00 first loss")
    assert lines[1] == "compile off, training runs eager: no compiler"
    assert lines[2] == "length about 32:40 from now; --minutes 10 sizes a run for 10 minutes"
    assert lines[3] == "step 2/100 2 % loss 3.000 ETA 32:40"
    Run(
        monkeypatch, total=100, seconds=20, sized=True
    )  # by --minutes, which it need not be told of
    assert "length about 32:40 from now" in said(capsys)
    assert lines[4].startswith("step 5/100 5 % loss 3.000 ETA 31:40 4 real tok/s padding 10.0 %")
    assert lines[-2].startswith("step 100/100 100 % loss 3.000 4 real tok/s")
    assert lines[-1] == "finished 100 steps in 33:20"
    assert len(lines) <= MOST_LINES


def test_slow_steps_compiled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The step that compiles says nothing of those that come."""
    Run(monkeypatch, total=41, seconds=10, compiling=60)
    lines = said(capsys)
    assert lines[1:6] == [
        "compile begins; takes some 10 to 80 s, once",
        "compile took 70 s; Ctrl-C stops, --ckpt_path last goes on",
        "step 2/41 4 % loss 3.000",
        "length about 6:20 from now",
        "step 3/41 7 % loss 3.000 ETA 6:20 9 real tok/s padding 10.0 % MFU 0 % data wait 0 %",
    ]


def test_fast_steps(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(monkeypatch, total=100_000, seconds=1 / 1024, compiling=9)
    lines = said(capsys)
    assert len(lines) <= MOST_LINES
    assert [line.split(" loss")[0] for line in lines if " % loss" in line] == [
        "step 2/100000 0 %",
        "step 5150/100000 5 %",
        "step 35900/100000 35 %",
        "step 66650/100000 66 %",
        "step 97400/100000 97 %",
        "step 100000/100000 100 %",
    ]
    assert "length about 1:33 from now" in lines
    assert len(run.reduced) <= 100_000 / 50 + 20


def test_a_run_of_three_steps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Run(monkeypatch, total=3, seconds=0.1, compiling=1)
    lines = said(capsys)
    assert lines[3].startswith("step 3/3 100 % loss 3.000 900 real tok/s")
    assert len(lines) == 5 and not any(line.startswith("length") for line in lines)


@pytest.mark.parametrize("compiling", [None, 60])
def test_a_resume_counts_what_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], compiling: float | None
) -> None:
    Run(monkeypatch, total=1000, seconds=20, first_step=899, compiling=compiling)
    lines = said(capsys)
    assert "length about 33:00 from now; --minutes 10 stops after 10 minutes" in lines
    first = next(line for line in lines if " % loss" in line)
    assert first == "step 901/1000 90 % loss 3.000 ETA 33:00"
    assert lines[-1] == f"finished 101 steps in {'33:40' if compiling is None else '34:40'}"


@pytest.mark.parametrize("total", [1, 2, 3, 30, 500])
@pytest.mark.parametrize("first_step", [0, 1, 29, 77])
def test_all_processes_make_the_same_collective_calls(
    monkeypatch: pytest.MonkeyPatch, total: int, first_step: int
) -> None:
    """Their clocks may differ, their lines are not said."""
    runs = [
        Run(monkeypatch, total=total, seconds=0.9, first_step=first_step, of_clock=speed)
        for speed in (0.01, 1.0, 33.0)
    ]
    assert runs[0].reduced == runs[1].reduced == runs[2].reduced


@pytest.mark.parametrize("first_step", [0, 33])
@pytest.mark.parametrize("total", [7, 40, 333])
def test_the_loggers_get_the_same_whatever_is_on_the_screen(
    monkeypatch: pytest.MonkeyPatch, total: int, first_step: int
) -> None:
    """Looks between `log_every_n_steps` leave each interval whole."""
    kinds: list[Shows] = ["bar", "lines", "none", "lightning"]
    bar, loud, quiet, theirs = (
        Run(monkeypatch, total=total, seconds=3, first_step=first_step, every=20, shows=shows)
        for shows in kinds
    )
    assert bar.logged == loud.logged == quiet.logged == theirs.logged
    assert bar.reduced == loud.reduced and quiet.reduced == theirs.reduced
    every = max(1, min(20, total // 10))
    steps = range(first_step + 1, total + 1)
    wanted = [step for step in steps if step % every == 0 or step == total]
    assert [step for step, _ in loud.logged if step > 1] == [step for step in wanted if step > 1]
    assert len(loud.reduced) >= len(quiet.reduced)


FOUND = {"tokens_per_s": 35_700, "padding": 0.047, "data_wait": 0.01, "mfu": 0.33}


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (40, "step 1020/2047  loss 3.521  ETA 0:57"),
        (60, "step 1020/2047  loss 3.521  ETA 0:57  35.7 k real tok/s"),
        (80, "####....  step 1020/2047  loss 3.521  ETA 0:57  35.7 k real tok/s  val 3.239"),
        (
            120,
            "############.............  step 1020/2047  loss 3.521  ETA 0:57  35.7 k real tok/s"
            "  val 3.239  padding 4.7 %  MFU 33 %",
        ),
    ],
)
def test_the_bar_shows_what_matters_most(columns: int, line: str) -> None:
    now = [100.0]
    callback = Progress(Throughput(), "bar", clock=lambda: now[0])
    callback.total_steps, callback._seen_step = 2047, 1020
    callback._loss, callback._found, callback._validated = 3.521, FOUND, 3.239
    callback._left = 59.0, 98.0  # seconds, two of which have passed
    share, parts = callback._state()
    assert share == 1020 / 2047
    width = drawing_width(parts, columns - 1)
    drawn = "#" * round(width * share) + "." * (width - round(width * share))
    assert f"{drawn}  {fitting(parts, columns - 1 - len(drawn) - 2)}".strip() == line
    assert len(line) < columns


def test_a_line_in_a_pipe_has_100_columns_at_most(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a run of a day, by a GPU."""
    callback = Progress(Throughput())
    callback.total_steps = 20_000_000
    more = {"tokens_per_s": 350_700, "mfu": 1.33, "peak_memory": 99e9}
    callback.pace = Pace(callback.total_steps, 50)
    callback._say_progress(19_999_999, 3.5, FOUND | more)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert "loss 3.500" in lines[-1] and "350.7 k real tok/s" in lines[-1]


def test_what_is_printed_is_what_is_logged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(monkeypatch, total=100, seconds=20, every=5)
    lines = [line for line in said(capsys) if "real tok/s" in line]
    speed = figures.TOKENS_PER_SECOND
    logged = {step: values for step, values in run.logged if speed in values}
    shown = 0
    for line in lines:
        step = int(line.split()[1].partition("/")[0])
        if step in logged:
            shown += 1
            assert f" {logged[step][speed]:.0f} real tok/s" in line
            assert f" loss {logged[step][figures.TRAIN_LOSS]:.3f}" in line
            assert f" padding {100 * logged[step][figures.PADDING]:.1f} %" in line
    assert shown > 10


def test_none_prints_notes_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Run(monkeypatch, total=100, seconds=20, shows="none")
    assert [line.split()[0] for line in said(capsys)] == ["compile", "finished"]
