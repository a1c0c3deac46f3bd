"""Damaged checkpoints: none runs foreign code, none loads altered weights, none is passed over
without a word.

Each is given by path to `fit`, to `LanguageModel.load_from_checkpoint`, and laid down as the newest
`last.ckpt` of a run that has an older good one; those that carry code are loaded also with
TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 and from URLs served here. Some kinds go through whole commands
in processes of their own too. What was loaded is compared bit by bit with what was saved: a flipped
bit in an archive's filling that changes nothing may load.
"""

import functools
import http.server
import random
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from soak.damage import (
    KINDS,
    MALICIOUS,
    WHOLE,
    Maker,
    Original,
    a_bit_anywhere,
    foreign,
    malicious_archive,
    malicious_folder,
    malicious_legacy,
    other_shapes,
    truncated,
)
from soak.observers import LOADED, digest, read_lines
from soak.small_runs import SmallRuns
from workshop import Outcome, load, run

from lightning_embed.training.lightning_module import LanguageModel

pytestmark = pytest.mark.slow

ONE_IN = 5  # of the 200 files that `KINDS` counts, so many are tried; all take 11 minutes
SEED = 0
STEPS = ("--checkpoints.every_n_steps", "3", "--trainer.max_steps", "6")
UNSAFE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
GENERATE = ("--max_new_tokens", "8")
REFUSED, OLDER, EQUAL = "refused", "the older one used", "loaded, equal"


class Known(NamedTuple):
    """What a command had loaded when it began its work."""

    step: int
    weights: str
    moments: str


class Bench:
    """A run with two good checkpoints, and what commands make of damaged copies of its last."""

    def __init__(self, folder: Path) -> None:
        self.shop = SmallRuns(folder)
        self.shop.must_succeed("fit", "--name", "run", *STEPS)
        self.template = self.shop.root / "run"
        checkpoints = self.template / "checkpoints"
        (checkpoints / "best.ckpt").unlink(missing_ok=True)
        older, last = checkpoints / "previous.ckpt", checkpoints / "last.ckpt"
        self.original = Original(last.read_bytes(), load(last))
        self.older, self.last = self.state_of(older), self.state_of(last)
        self.text = run("generate", "--checkpoint", last, *GENERATE).out
        self.away = folder / "damaged"
        self.away.mkdir()
        self.trace = folder / "trace"  # a payload that runs leaves this file
        self.url = ""

    def state_of(self, path: Path) -> Known:
        told, state = self.command("fit", "--ckpt_path", str(path), *STEPS[:2])
        assert state is not None and state.step in (3, 6), told.err
        assert state.weights == digest(load(path)["state_dict"])
        return state

    def command(self, *args: str, apart: bool = False) -> tuple[Outcome, Known | None]:
        """How it ended, and what it had loaded if it got so far: it ends before its work begins."""
        file = self.shop.root.parent / f"seen{time.monotonic_ns()}"
        name = "--trainer.callbacks"
        observed = (f"{name}+=soak.observers.Loaded", f"{name}.file={file}")
        limit = ("--trainer.max_steps", "9") if args[0] == "fit" else ()
        if apart:
            told = self.shop.start(*args, *limit, *observed).outcome(120)
        else:
            told = self.shop.run(*args, *limit, *observed)
        lines = read_lines(file)
        return told, Known(**lines[0]) if lines else None

    def make(self, maker: Maker, draw: random.Random) -> Path:
        path = self.away / f"{maker.__name__}{time.monotonic_ns()}.ckpt"
        maker(self.original, draw, path, self.trace)
        self.trace.unlink(missing_ok=True)
        return path

    def source(self, path: Path, way: str) -> str:
        return {"path": str(path), "file": path.as_uri(), "http": f"{self.url}/{path.name}"}[way]

    def verdict(self, told: Outcome, state: Known | None) -> str:
        """Which of the good states a command loaded, or that it said in one line why none."""
        assert not self.trace.exists(), "code ran"
        assert "Traceback" not in told.out + told.err
        if state is None:
            told.error_line()
            return REFUSED
        assert told.status == LOADED
        if state == self.older:
            return OLDER
        assert state == self.last, "from scratch" if state.step == 0 else "altered"
        return EQUAL

    def laid_down_as_the_newest(self, damaged: Path) -> str:
        """The name of a run whose last.ckpt it is, and which has an older good one."""
        name = f"with-{damaged.stem}"
        target = self.shop.root / name
        shutil.copytree(self.template, target)
        last = target / "checkpoints" / "last.ckpt"
        last.unlink()
        shutil.copytree(damaged, last) if damaged.is_dir() else shutil.copy(damaged, last)
        return name


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Its damaged files are served on a port of this machine."""
    found = Bench(tmp_path_factory.mktemp("damage"))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(found.away))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()


@pytest.fixture(params=(False, True), ids=("safe", "forced"))
def forced(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the environment tells torch to unpickle whatever it finds."""
    if request.param:
        monkeypatch.setenv(UNSAFE, "1")
    else:
        monkeypatch.delenv(UNSAFE, raising=False)
    return bool(request.param)


FILES = [
    pytest.param(maker, number, id=f"{maker.__name__}{number}")
    for maker, count in KINDS.items()
    for number in range(-(-count // ONE_IN))
]
each_file = pytest.mark.parametrize(("maker", "number"), FILES)


def draw_for(maker: Maker, number: int) -> random.Random:
    return random.Random(f"{SEED} {maker.__name__} {number}")


@each_file
def test_by_path_it_is_refused_or_equal(
    bench: Bench, maker: Maker, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bench.make(maker, draw_for(maker, number))
    if maker in MALICIOUS:
        monkeypatch.setenv(UNSAFE, "1")
    verdict = bench.verdict(*bench.command("fit", "--ckpt_path", str(path)))
    assert verdict == REFUSED or (verdict == EQUAL and maker not in MALICIOUS)


@each_file
def test_as_the_newest_it_gives_way_to_an_older_one_with_a_word(
    bench: Bench, maker: Maker, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can be told from a checkpoint of ours by its content alone may also be refused."""
    name = bench.laid_down_as_the_newest(bench.make(maker, draw_for(maker, number)))
    if maker in MALICIOUS:
        monkeypatch.setenv(UNSAFE, "1")
    told, state = bench.command("fit", "--name", name, "--ckpt_path", "last")
    verdict = bench.verdict(told, state)
    assert verdict != REFUSED or maker in WHOLE
    if verdict == OLDER:
        assert "last.ckpt" in told.out  # three steps are lost: which file was passed over is said


@each_file
def test_a_program_gets_equal_weights_or_an_exception(
    bench: Bench, maker: Maker, number: int
) -> None:
    path = bench.make(maker, draw_for(maker, number))
    try:
        module = LanguageModel.load_from_checkpoint(path, map_location="cpu")
    except Exception:  # any will do, the caller is a program
        module = None
    assert not bench.trace.exists(), "code ran"
    assert module is None or digest(module.state_dict()) == bench.last.weights


WAYS = [
    pytest.param(*file.values, way, id=f"{file.id}-{way}")
    for file in FILES
    for way in ("path", "file", "http")
    if file.values[0] in MALICIOUS and (way == "path" or file.values[0] is not malicious_folder)
]


@pytest.mark.parametrize("way", ["path", "file", "http"])
def test_an_intact_one_loads_by_each_way(
    bench: Bench, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the refusals below would say little."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = bench.away / "intact.ckpt"
    path.write_bytes(bench.original.content)
    module = LanguageModel.load_from_checkpoint(bench.source(path, way), map_location="cpu")
    assert digest(module.state_dict()) == bench.last.weights


@pytest.mark.parametrize(("maker", "number", "way"), WAYS)
def test_no_way_of_loading_runs_code(
    bench: Bench,
    maker: Maker,
    number: int,
    way: str,
    forced: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # what comes from a URL is kept there
    path = bench.make(maker, draw_for(maker, number))
    with pytest.raises(Exception):  # noqa: B017  (whichever, as long as no code runs)
        LanguageModel.load_from_checkpoint(bench.source(path, way), map_location="cpu")
    assert not bench.trace.exists(), "code ran"


@pytest.mark.parametrize(
    "maker",
    [truncated, a_bit_anywhere, other_shapes, foreign, *MALICIOUS],
    ids=lambda m: m.__name__,
)
def test_whole_commands_refuse_it_or_load_it_equal(
    bench: Bench, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bench.make(maker, draw_for(maker, 0))
    if maker in MALICIOUS:
        monkeypatch.setenv(UNSAFE, "1")
    bench.verdict(*bench.command("fit", "--ckpt_path", str(path), apart=True))
    told, state = bench.command("validate", "--ckpt_path", str(path), apart=True)
    if state is None:
        assert bench.verdict(told, state) == REFUSED
    else:
        assert state.weights == bench.last.weights
    told = bench.shop.start_plain("generate", "--checkpoint", path, *GENERATE).outcome(120)
    assert not bench.trace.exists(), "code ran"
    if told.status == 0:
        assert told.out == bench.text and maker not in MALICIOUS
    else:
        told.error_line()


@pytest.mark.parametrize("maker", [malicious_archive, malicious_legacy], ids=lambda m: m.__name__)
def test_the_payload_runs_where_it_is_trusted(bench: Bench, maker: Maker) -> None:
    """Else nothing above could fail."""
    path = bench.make(maker, draw_for(maker, 0))
    torch.load(path, weights_only=False)
    assert bench.trace.exists()
    bench.trace.unlink()
