"""Runs killed with SIGKILL and resumed until done end bit by bit like one that nobody disturbed.

A run saves every 3 steps and is killed once to three times, each time at another random moment: at
any since its start, at one of training, or as soon as a temporary file shows in its folder of
checkpoints. It is resumed with `--ckpt_path last`, or begun anew where there was no checkpoint yet.
In the end its weights, moments and schedule must be those of the undisturbed run, and TensorBoard
must show the same curve: `loss/train` at every step, with no gap and no step twice.

A step that was logged before a kill and again after the resume is on disk twice. TensorBoard shows
it once if the resumed run's events begin with a session start (`purge_step`); what is compared here
is what TensorBoard's own reader gives.
"""

import random
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from soak.small_runs import Process, SmallRuns, differences
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from workshop import load

pytestmark = pytest.mark.slow

# Runs of each setting and moment, half a minute each (compiled ones twice that). To be surer, take
# more: 50 in all (33 minutes) were the first proof.
RUNS = 1
SEED = 0
STEPS = 60
OPTIONS = (
    *("--trainer.max_steps", str(STEPS), "--model.dropout", "0.1"),
    *("--checkpoints.every_n_steps", "3", "--trainer.log_every_n_steps", "1"),
)
COMPARED = ("state_dict", "optimizer_states", "lr_schedulers", "global_step")


class Setting(NamedTuple):
    compiled: bool
    threads: int

    def __str__(self) -> str:
        return f"{'compiled' if self.compiled else 'eager'}, {self.threads} threads"


SETTINGS = (Setting(False, 1), Setting(False, 2), Setting(True, 2))


class Whole(NamedTuple):
    """A run that nobody disturbed, and how long it took."""

    folder: Path
    seconds: float
    training: float  # seconds since its first loss


class Shop(SmallRuns):
    """Starts runs in a setting; compiled code is kept from run to run."""

    setting: Setting

    def start_run(self, name: str, *args: str) -> Process:
        compiled = ("--model.compile", str(self.setting.compiled).lower())
        cache = {"TORCHINDUCTOR_CACHE_DIR": str(self.root.parent / "compiled")}
        threads = self.setting.threads
        return self.start(
            "fit", "--name", name, *compiled, *args, threads=threads, environment=cache
        )

    def folder(self, name: str) -> Path:
        """Of the newest run of this name, or where the first will be."""
        return self.newest(name) if list(self.root.glob(f"{name}*")) else self.root / name

    def go_on(self, name: str) -> Process:
        """Resume where there is a checkpoint, else begin."""
        saved = (self.folder(name) / "checkpoints").glob("*.ckpt")
        last = ("--ckpt_path", "last") if any(not p.name.startswith(".") for p in saved) else ()
        return self.start_run(name, *last)


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[Setting], tuple[Shop, Whole]]:
    """By setting, a run that nobody disturbed. It runs twice: the first fills the compiler's cache,
    and did they not agree, no other could be compared."""

    @cache
    def run(setting: Setting) -> tuple[Shop, Whole]:
        shop = Shop(tmp_path_factory.mktemp("kills"), options=OPTIONS)
        shop.setting = setting
        for name in ("one", "two"):
            process = shop.start_run(name)
            process.wait_for("first loss")
            first = time.monotonic()
            told = process.outcome()
            assert told.status == 0, told.out + told.err
            ended = time.monotonic()
        one, two = (load(shop.checkpoint(name))["state_dict"] for name in ("one", "two"))
        assert not differences(one, two)
        return shop, Whole(shop.root / "two", ended - process.began, ended - first)

    return run


def temporary(checkpoints: Path) -> set[str]:
    """Names of what is still being written, or was and has not its name yet."""
    if not checkpoints.exists():
        return set()
    return {p.name for p in checkpoints.iterdir() if p.name.startswith((".", "next."))}


def wait_for(moment: str, process: Process, place: Path, whole: Whole, draw: random.Random) -> None:
    """Return when it is time, or when the process has ended."""
    if moment == "any":
        until = process.began + draw.uniform(0, whole.seconds)
    elif process.wait_for("first loss"):
        until = time.monotonic() + draw.uniform(0, whole.training)
    else:
        return
    while process.running and time.monotonic() < until:
        time.sleep(0.001)
    if moment == "writing":
        before = temporary(place)
        while process.running and not temporary(place) - before:
            pass  # a write takes milliseconds
        time.sleep(draw.choice([0, 0, 0.001, 0.002]))


def kill(shop: Shop, name: str, moment: str, whole: Whole, draw: random.Random) -> int:
    """Start or resume it once to three times and kill it each time; how often that came in time."""
    kills = 0
    for _ in range(draw.choice([1, 1, 2, 3])):
        process = shop.go_on(name)
        wait_for(moment, process, shop.folder(name) / "checkpoints", whole, draw)
        if not process.running:
            told = process.outcome()
            assert told.status == 0, told.err
            break
        process.kill()
        kills += 1
    return kills


def curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    """Steps and values by TensorBoard's own rules, all event files together, nothing sampled."""
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 1})
    reader.Reload()
    return [(event.step, event.value) for event in reader.Scalars(tag)]


@pytest.mark.parametrize("turn", range(RUNS))
@pytest.mark.parametrize("moment", ["any", "training", "writing"])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_a_killed_run_ends_as_if_nobody_had_disturbed_it(
    undisturbed: Callable[[Setting], tuple[Shop, Whole]], setting: Setting, moment: str, turn: int
) -> None:
    shop, whole = undisturbed(setting)
    draw = random.Random(f"{SEED} {setting} {moment} {turn}")
    name = f"{moment}{turn}"
    while not kill(shop, name, moment, whole, draw):  # it was quicker than the clock
        name += "x"
    told = shop.go_on(name).outcome()
    assert told.status == 0, told.err

    folder = shop.newest(name)
    ours, theirs = (load(p / "checkpoints" / "last.ckpt") for p in (folder, whole.folder))
    assert not [d for key in COMPARED for d in differences(ours[key], theirs[key], key)]
    assert [step for step, _ in curve(folder, "loss/train")] == [*range(1, STEPS + 1)]
    for tag in ("loss/train", "loss/validation"):
        assert curve(folder, tag) == curve(whole.folder, tag)
