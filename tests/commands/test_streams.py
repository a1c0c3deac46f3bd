"""Standard streams that are closed, break or know few letters, and terminals that are closed."""

import io
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from workshop import ROOT, Workshop, load

from lightning_embed.cli import main

THREE = ("--trainer.max_steps", "3")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def program(workshop: Workshop, *more: str) -> list[str]:
    fit = workshop.arguments("fit", "--name", "run", *more)
    return [sys.executable, "-u", str(ROOT / "train.py"), *fit]


def assert_trained(workshop: Workshop) -> None:
    for kind in ("last", "best"):
        assert load(workshop.checkpoint("run", kind))["global_step"] == 3


def broken_pipe() -> Iterator[int]:
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


def full_disk() -> Iterator[int]:
    yield os.open("/dev/full", os.O_WRONLY)


@pytest.mark.parametrize("stream", [broken_pipe, full_disk])
def test_training_goes_on_though_nothing_can_be_written(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, stream
) -> None:
    for number in stream():
        with open(number, "w", closefd=False) as out:
            monkeypatch.setattr(sys, "stdout", out)
            assert main(workshop.arguments("fit", "--name", "run", *THREE)) == 0
            monkeypatch.undo()
    assert_trained(workshop)


@pytest.mark.slow
def test_training_goes_on_though_all_streams_are_closed(workshop: Workshop) -> None:
    done = subprocess.run(
        ["bash", "-c", '"$@" <&- >&- 2>&-', "-", *program(workshop, *THREE)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0
    assert_trained(workshop)


@pytest.mark.parametrize("which", ["1", "0 1", "0 1 2"])
def test_the_numbers_of_closed_streams_are_taken(tmp_path: Path, which: str) -> None:
    code = (
        "import os\n"
        f"for number in map(int, '{which}'.split()): os.close(number)\n"
        "from lightning_embed import console\n"
        "console.prepare()\n"
        f"file = open({str(tmp_path / 'first')!r}, 'w')\n"
        "file.write(str(file.fileno() > 2)); file.close()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=True)
    assert (tmp_path / "first").read_text() == "True"


def test_letters_that_a_terminal_lacks_are_replaced(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "naïve 日本.txt"
    text.write_text("straße über кот 日本 naïve café\n" * 300, encoding="utf-8")
    more = ("--data.files", str(text), "--samples.prompts", "[日本]")
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert main(workshop.arguments("fit", "--name", "run", *THREE, *more)) == 0
    monkeypatch.undo()
    told = out.buffer.getvalue().decode("ascii")
    assert "na?ve ??.txt" in told and "sample   ??" in told
    assert_trained(workshop)


def test_a_closed_terminal_saves_the_run(workshop: Workshop, not_nohup: None) -> None:
    """Writing to it fails, too."""
    arguments = program(workshop, "--trainer.max_steps", "1000000")
    terminal, inside = pty.openpty()
    # The first terminal that the leader of a session opens is the session's.
    on = f'exec "$@" <{os.ttyname(inside)} >{os.ttyname(inside)} 2>&1'
    command = ["sh", "-c", on, "-", *arguments]
    with subprocess.Popen(command, env=ENVIRONMENT, start_new_session=True) as child:
        try:
            out = b""
            while b"compile" not in out:  # its first step is done
                out += os.read(terminal, 4096)
            os.close(inside)
            os.close(terminal)
            assert child.wait(timeout=120) == 128 + signal.SIGHUP
        finally:
            child.kill()
    assert load(workshop.checkpoint("run"))["global_step"] > 0


def test_under_nohup_it_trains_on(workshop: Workshop) -> None:
    name = "--trainer.callbacks"
    hangup = (f"{name}+=workshop.SignalAt", f"{name}.step=2", f"{name}.signal_name=SIGHUP")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        told = workshop.fit("run", *THREE, *hangup)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert "finished 3 steps" in told.out
    assert_trained(workshop)
