"""Two processes train as one does: same batches, same loss, same weights."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from workshop import APART, ROOT, Outcome, Workshop, load, padding_is_zero, run_apart

STEPS = ("--trainer.max_epochs", "1", "--trainer.log_every_n_steps", "1")
ADAMW = ("--model.optimizer", "adamw")
DDP = ("--trainer.strategy", "ddp", "--trainer.devices", "2")


def figures(outcome: Outcome) -> list[float]:
    """Loss and bits per byte of the whole held-out text."""
    line = outcome.line("held out validation loss")
    return [float(line.split()[0]), float(outcome.line("bits per byte"))]


def losses(outcome: Outcome) -> list[str]:
    return re.findall(r"step \d+/\d+.*?  loss ([\d.]+)", outcome.out)


@pytest.fixture(scope="module")
def runs(corpus: str, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(corpus, cache, tmp_path_factory.mktemp("processes"))


@pytest.fixture(scope="module")
def alone(runs: Workshop) -> Outcome:
    """The run of one process that others are compared with."""
    return runs.fit("alone", *STEPS, *ADAMW)


def several(runs: Workshop, name: str, *options: str | Path) -> Outcome:
    told = run_apart(*runs.arguments("fit", "--name", name, *STEPS, *ADAMW, *options))
    assert told.status == 0, told.out + told.err
    assert told.err == "", told.err
    return told


def assert_trained_alike(runs: Workshop, name: str) -> None:
    one, two = load(runs.checkpoint("alone")), load(runs.checkpoint(name))
    assert one["global_step"] == two["global_step"]
    for key, value in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][key], value, atol=1e-4, rtol=1e-4, msg=key)
    assert padding_is_zero(runs.checkpoint(name))
    assert padding_is_zero(runs.checkpoint(name, "best"))


def test_two_processes_train_as_one(
    runs: Workshop, alone: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of them alone hashes the text, once."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    source = ("--data.source", "workshop.CountedFiles", "--data.source.files", f"[{runs.files}]")
    ddp = ("--config", ROOT / "configs" / "ddp.yaml")
    told = several(runs, "two", *ddp, "--data.files", "null", *source)
    assert (Path(runs.files).parent / "hashed").read_text() == "0\n"
    assert "2 processes" in told.line("numbers")
    assert figures(told) == pytest.approx(figures(alone), abs=1e-4)
    assert [float(x) for x in losses(told)] == pytest.approx(
        [float(x) for x in losses(alone)], abs=2e-3
    )
    assert_trained_alike(runs, "two")
    assert runs.runs().count("two") == 1 and "two-2" not in runs.runs()
    for line in ("run ", "corpus ", "finished", "held out", "best"):  # one process talks
        assert told.out.count(f"\n{line}") + told.out.startswith(line) == 1


@pytest.mark.slow
def test_two_processes_evaluate_each_window_once(runs: Workshop, alone: Outcome) -> None:
    """The same checkpoint, so that sums over the held-out text must agree to the last digit."""
    best = runs.checkpoint("alone", "best")
    told = run_apart(*runs.arguments("validate", "--ckpt_path", best, *DDP))
    assert told.status == 0, told.err
    assert figures(told) == figures(alone)


@pytest.mark.parametrize("target", [pytest.param("group", marks=pytest.mark.slow), "rank 1"])
def test_a_signal_to_some_process_stops_all_and_saves(runs: Workshop, target: str) -> None:
    """Whoever is told, all stop after the same step with 128 + signal; nobody waits for ever."""
    name = f"told {target}".replace(" ", "-")
    more = ("--name", name, "--trainer.max_steps", "1000000", *DDP)
    child = subprocess.Popen(
        [sys.executable, "-u", str(ROOT / "train.py"), *runs.arguments("fit", *more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | APART,
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("compile"):
                break
        if target == "group":
            os.killpg(child.pid, signal.SIGTERM)
        else:
            os.kill(int(children(child.pid)[0]), signal.SIGTERM)
        out, err = child.communicate(timeout=120)
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
    assert child.returncode == 143, out + err
    assert err == ""
    step = int(re.findall(r"by SIGTERM after step (\d+)", out)[0])
    assert load(runs.checkpoint(name))["global_step"] == step > 0


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_torchrun_starts_the_processes_too(runs: Workshop, alone: Outcome) -> None:
    """As on several hosts, where each process is started from outside."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", "2", str(ROOT / "train.py")]
    command += runs.arguments("fit", "--name", "torchrun", *STEPS, *ADAMW, *DDP)
    environment = os.environ | APART
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    told = Outcome(found.returncode, found.stdout, found.stderr)
    assert told.status == 0, told.out + told.err
    assert figures(told) == pytest.approx(figures(alone), abs=1e-4)
    assert runs.runs().count("torchrun") == 1 and "torchrun-2" not in runs.runs()
    assert_trained_alike(runs, "torchrun")


@pytest.mark.slow
def test_srun_starts_the_processes_too_seconds_apart(runs: Workshop, alone: Outcome) -> None:
    command = [sys.executable, str(ROOT / "train.py")]
    command += runs.arguments("fit", "--name", "srun", *STEPS, *ADAMW, *DDP)
    job = {
        **{"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1"},
        **{"SLURM_JOB_ID": "4711", "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1"},
    }

    def start(rank: str) -> subprocess.Popen[str]:
        mine = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank, **APART}
        pipe, environment = subprocess.PIPE, os.environ | job | mine
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)

    first = start("0")
    try:
        assert first.stdout is not None
        seen = [line := first.stdout.readline()]
        while line and not line.startswith("numbers"):  # its folder is claimed
            seen.append(line := first.stdout.readline())
        late = start("1")
        out, err = late.communicate(timeout=120)
        assert (late.returncode, out, err) == (0, "", "")
        rest, err = first.communicate(timeout=120)
    finally:
        first.kill()
    told = Outcome(first.returncode, "".join(seen) + rest, err)
    assert told.status == 0 and told.err == "", told.err
    assert figures(told) == pytest.approx(figures(alone), abs=1e-4)
    for line in ("run ", "corpus ", "numbers", "finished", "held out", "best", "go on"):
        assert told.out.count(f"\n{line}") + told.out.startswith(line) == 1
    assert told.line("go on").startswith("srun --nodes=1 --ntasks-per-node=2 ")
    assert [name for name in runs.runs() if name.startswith("srun")] == ["srun"]
    folder = runs.root / "srun"
    assert len(list(folder.glob("config*.yaml"))) == 1
    assert {path.name.split(".")[-2] for path in folder.glob("events*")} == {str(first.pid)}


@pytest.mark.slow
def test_a_run_of_one_process_goes_on_with_two(runs: Workshop, alone: Outcome) -> None:
    stop = ("--trainer.callbacks+=workshop.SignalAt", "--trainer.callbacks.step=4")
    assert runs.run("fit", "--name", "grown", *STEPS, *ADAMW, *stop).status == 143
    told = several(runs, "grown", *DDP, "--ckpt_path", "last")
    assert "step 4," in told.line("resume")
    assert_trained_alike(runs, "grown")


@pytest.mark.slow
def test_accumulation_with_two_processes(runs: Workshop, alone: Outcome) -> None:
    told = several(runs, "both", *DDP, "--trainer.accumulate_grad_batches", "2")
    assert figures(told) == pytest.approx(figures(alone), abs=1e-4)
    assert_trained_alike(runs, "both")
