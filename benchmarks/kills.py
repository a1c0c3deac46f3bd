"""50 runs killed with SIGKILL at random moments and resumed until done, compared bit by bit.

    python benchmarks/kills.py [--runs 50] [--seed 0]

Eager and compiled, on 1 and 2 threads; of 50 runs 10 are compiled. A run saves every 3 steps and is
killed once to three times: at any moment since its start, at one of training, or as soon as a
temporary file shows in its folder of checkpoints, and resumed with `--ckpt_path last` (begun anew
where there was no checkpoint yet). In the end its weights, moments and schedule must be bitwise
those of the run that nobody disturbed, and TensorBoard must show the same curve: `train/loss` at
every step, with no gap and no step twice.

A step that was logged before a kill and again after the resume is on disk twice. TensorBoard shows
it once if the resumed run's events begin with a session start (`purge_step`); what is counted here
as seen is what TensorBoard's own reader gives. Leaves with status 1 if anything differs.
"""

import argparse
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from small_runs import Outcome, Process, SmallRuns, differences, load
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

STEPS = 60
OPTIONS = (
    *("--trainer.max_steps", str(STEPS), "--model.dropout", "0.1"),
    *("--checkpoints.every_n_steps", "3", "--trainer.log_every_n_steps", "1"),
)
MOMENTS = {"any": 2, "training": 4, "writing": 5}  # how often each is drawn
COMPARED = ("state_dict", "optimizer_states", "lr_schedulers", "global_step")
CURVES = ("train/loss", "val/loss")


class Setting(NamedTuple):
    compiled: bool
    threads: int
    share: int  # of the runs, in tenths

    def __str__(self) -> str:
        return f"{'compiled' if self.compiled else 'eager'}, {self.threads} threads"


SETTINGS = (Setting(False, 1, 4), Setting(False, 2, 4), Setting(True, 1, 1), Setting(True, 2, 1))


class Curve(NamedTuple):
    """A figure's steps and values as TensorBoard shows them."""

    steps: tuple[int, ...]
    values: tuple[float, ...]

    def gaps(self, expected: "Curve") -> list[int]:
        return sorted(set(expected.steps) - set(self.steps))

    def doubles(self) -> list[int]:
        return sorted(step for step, count in Counter(self.steps).items() if count > 1)


def curves(folder: Path) -> dict[str, Curve]:
    """By TensorBoard's own rules, all event files of the run together and nothing sampled."""
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 1})
    reader.Reload()
    found = {}
    for tag in CURVES:
        events = reader.Scalars(tag) if tag in reader.Tags()["scalars"] else []
        found[tag] = Curve(tuple(e.step for e in events), tuple(e.value for e in events))
    return found


def logged(folder: Path) -> Counter[int]:
    """How often each step's `train/loss` is on disk, whatever a reader makes of it."""
    steps: Counter[int] = Counter()
    for file in sorted(folder.glob("events.out.tfevents.*")):
        for event in EventFileLoader(str(file)).Load():
            steps.update(event.step for value in event.summary.value if value.tag == CURVES[0])
    return steps


class Whole(NamedTuple):
    """A run that nobody disturbed, and how long it took."""

    folder: Path
    seconds: float
    training: float


@dataclass
class Tally:
    """What became of a setting's runs."""

    runs: int = 0
    kills: int = 0
    in_a_write: int = 0
    anew: int = 0
    equal: int = 0
    gaps: int = 0
    doubles: int = 0
    on_disk: int = 0
    left_over: int = 0
    faults: list[str] = field(default_factory=list)


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


def resumable(folder: Path) -> bool:
    return any(not p.name.startswith(".") for p in folder.glob("checkpoints/*.ckpt"))


class Trial:
    """One run, killed and resumed until it is done.

    Args:
        shop: where it runs.
        name: its own.
        setting: compiled or not, threads.
        whole: the run it is compared with.
        draw: of the moments.
        tally: what it adds to.
    """

    def __init__(
        self,
        shop: SmallRuns,
        name: str,
        setting: Setting,
        whole: Whole,
        draw: random.Random,
        tally: Tally,
    ) -> None:
        self.shop, self.name, self.setting = shop, name, setting
        self.whole, self.draw, self.tally = whole, draw, tally

    def start(self) -> Process:
        last: tuple[str, ...] = ()
        if list(self.shop.root.glob(f"{self.name}*")):
            if resumable(self.shop.newest(self.name)):
                last = ("--ckpt_path", "last")
            else:
                self.tally.anew += 1
        return start(self.shop, self.setting, "--name", self.name, *last)

    def run(self) -> None:
        self.tally.runs += 1
        kills = 0
        for _ in range(self.draw.choice([1, 1, 2, 3])):
            process = self.start()
            moment = self.draw.choices([*MOMENTS], [*MOMENTS.values()])[0]
            folder = self._folder()
            before = temporary(folder / "checkpoints")
            wait_for(moment, process, folder / "checkpoints", self.whole, self.draw)
            if not process.running:
                self._require_success(process.outcome())
                break
            process.kill()
            kills += 1
            # A name that was not there before tells that the kill fell between open and rename.
            left = temporary(self._folder() / "checkpoints") - before
            self.tally.in_a_write += bool(left)
        self.tally.kills += kills
        done = self._require_success(self.start().outcome())
        if not kills:  # it was quicker than the clock: another in its stead
            self.tally.runs -= 1
            self.name += "x"
            self.run()
        elif done:
            self.compare()

    def _folder(self) -> Path:
        found = list(self.shop.root.glob(f"{self.name}*"))
        return self.shop.newest(self.name) if found else self.shop.root / self.name

    def _require_success(self, told: Outcome) -> bool:
        if told.status != 0:
            said = (told.err.strip().splitlines() or ["nothing said"])[-1]
            self.tally.faults.append(f"{self.name}: ended with {told.status}: {said}")
        return told.status == 0

    def compare(self) -> None:
        folder = self.shop.newest(self.name)
        ours, theirs = (load(p / "checkpoints" / "last.ckpt") for p in (folder, self.whole.folder))
        other = [d for key in COMPARED for d in differences(ours[key], theirs[key], key)]
        self.tally.equal += not other
        if other:
            self.tally.faults.append(f"{self.name}: {len(other)} differ, {other[0]} for one")
        expected, found = curves(self.whole.folder), curves(folder)
        for tag in CURVES:
            gaps = found[tag].gaps(every_step() if tag == "train/loss" else expected[tag])
            doubles = found[tag].doubles()
            self.tally.gaps += len(gaps)
            self.tally.doubles += len(doubles)
            if gaps:
                self.tally.faults.append(f"{self.name}: {tag} lacks steps {gaps}")
            if doubles:
                self.tally.faults.append(f"{self.name}: {tag} shows steps {doubles} twice")
            values = dict(zip(*expected[tag], strict=True))
            if wrong := [s for s, v in zip(*found[tag], strict=True) if values.get(s, v) != v]:
                self.tally.faults.append(f"{self.name}: {tag} differs at steps {wrong}")
        self.tally.on_disk += sum(count > 1 for count in logged(folder).values())
        self.tally.left_over += bool(temporary(folder / "checkpoints"))


def every_step() -> Curve:
    steps = tuple(range(1, STEPS + 1))
    return Curve(steps, tuple(0.0 for _ in steps))


def start(shop: SmallRuns, setting: Setting, *args: str) -> Process:
    compiled = ("--model.compile", "true" if setting.compiled else "false")
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(shop.root.parent / "compiled")}
    return shop.start("fit", *args, *compiled, threads=setting.threads, environment=cache)


def undisturbed(shop: SmallRuns, setting: Setting, name: str) -> Whole:
    """Run twice: the first fills the compiler's cache, and both must agree."""
    for number in (1, 2):
        began = time.monotonic()
        process = start(shop, setting, "--name", f"{name}-run{number}")
        process.wait_for("first loss")
        first = time.monotonic()
        told = process.outcome()
        if told.status != 0:
            raise SystemExit(f"{setting}: the undisturbed run failed:\n{told.out}{told.err}")
    ended = time.monotonic()
    one, two = (shop.root / f"{name}-run{number}" for number in (1, 2))
    pair = [load(folder / "checkpoints" / "last.ckpt")["state_dict"] for folder in (one, two)]
    if differences(*pair):
        raise SystemExit(f"{setting}: two undisturbed runs differ, so no other can be compared")
    return Whole(two, ended - began, ended - first)


def main() -> None:
    from results import record

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draw = random.Random(given.seed)
    table = [
        "| setting | runs | kills | in a write | begun anew | bitwise equal | gaps | steps shown"
        " twice | steps twice on disk | with a temporary file left over |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    total, faults = Tally(), []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        shop = SmallRuns(Path(folder), options=OPTIONS)
        for number, setting in enumerate(SETTINGS):
            whole, tally = undisturbed(shop, setting, f"whole{number}"), Tally()
            for turn in range(max(1, given.runs * setting.share // 10)):
                Trial(shop, f"s{number}t{turn:02}", setting, whole, draw, tally).run()
                print(f"{setting}, run {turn + 1}: {tally}", flush=True)
            table.append(line(str(setting), tally))
            faults += [f"{setting}: {fault}" for fault in tally.faults]
            for key, value in vars(tally).items():
                setattr(total, key, getattr(total, key) + value)
    table.append(line("all", total))
    text = f"{STEPS} steps each, a checkpoint every 3; seed {given.seed};"
    text += f" {(time.monotonic() - began) / 60:.0f} minutes.\n\n" + "\n".join(table)
    if faults:
        text += f"\n\n{len(faults)} faults, for example:\n\n"
        text += "\n".join(f"- {fault}" for fault in faults[:10])
    record("Runs killed at random moments", text)
    raise SystemExit(1 if faults else 0)


def line(name: str, tally: Tally) -> str:
    return (
        f"| {name} | {tally.runs} | {tally.kills} | {tally.in_a_write} | {tally.anew}"
        f" | {tally.equal} | {tally.gaps} | {tally.doubles} | {tally.on_disk} | {tally.left_over} |"
    )


if __name__ == "__main__":
    main()
