"""A run whose processes do not meet: says so, ends on a signal, gives up in one line."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from workshop import APART, ROOT, Workshop

from lightning_embed.commands.waiting import ended_by_signals

DDP = "lightning.pytorch.strategies.DDPStrategy"
ALONE = ("--trainer.num_nodes", "2", "--trainer.max_steps", "2")


@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGINT", marks=pytest.mark.slow)])
def test_a_run_that_waits_says_for_whom_and_ends_on_a_signal(
    workshop: Workshop, name: str, tmp_path: Path
) -> None:
    program = tmp_path / "impatient.py"
    program.write_text(
        "import sys; from lightning_embed.commands import waiting; waiting.PATIENCE = 0.1\n"
        "from lightning_embed.cli import main; sys.exit(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-u", program, *workshop.arguments("fit", "--name", "run", *ALONE)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | APART | {"PYTHONPATH": str(ROOT)},
    ) as process:
        try:
            assert process.stdout is not None
            waiting = next(line for line in process.stdout if line.startswith("waiting"))
            process.send_signal(signal.Signals[name])
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 128 + signal.Signals[name], out + err
    assert out == f"stopped  by {name} while waiting\n" and err == ""
    assert "all 2 processes of this run (--trainer.num_nodes 2, --trainer.devices 1)" in waiting
    port = re.findall(r"at 127\.0\.0\.1:(\d+), this is number 0", waiting)[0]
    assert f"MASTER_PORT={port}" in waiting and "--trainer.num_nodes 1" in waiting
    assert "--trainer.strategy.timeout" in waiting
    assert workshop.runs() == []


@pytest.mark.slow
def test_a_run_that_waited_in_vain_is_told_in_one_line(workshop: Workshop) -> None:
    limit = ("--trainer.strategy", DDP, "--trainer.strategy.timeout", "0:00:01")
    told = workshop.run("fit", "--name", "run", *ALONE, *limit)
    line = told.error_line()
    assert "1/2 clients joined" in line and "--trainer.num_nodes 1" in line
    assert workshop.runs() == []


def test_a_port_in_use_is_told_in_one_line(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        monkeypatch.setenv("MASTER_PORT", port)
        told = workshop.run("fit", "--name", "run", *ALONE)
    assert f"MASTER_PORT={port}" in told.error_line()


def test_nothing_is_left_behind_once_the_processes_have_met() -> None:
    threads = threading.active_count()
    files = len(os.listdir("/proc/self/fd"))
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        with ended_by_signals(lambda number: None):
            assert threading.active_count() == threads + 1
        assert threading.active_count() == threads
        assert len(os.listdir("/proc/self/fd")) == files
        assert signal.set_wakeup_fd(-1) == -1
        signal.raise_signal(signal.SIGUSR1)  # is handled as ever
    finally:
        signal.signal(signal.SIGUSR1, before)
