"""Which process this is, as Lightning sees it; the command lines of whatever started it."""

import shlex
import signal
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from lightning.fabric.plugins.environments import (
    LightningEnvironment,
    LSFEnvironment,
    MPIEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)

from lightning_embed import processes
from lightning_embed.processes import command, command_of_all, global_rank, stop_signals

LAUNCHERS = (TorchElasticEnvironment, SLURMEnvironment, LSFEnvironment, MPIEnvironment)
PREFIXES = ("SLURM_", "TORCHELASTIC_", "LSB_", "JSM_", "OMPI_", "PMI_", "MV2_", "MASTER_")
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "GROUP_WORLD_SIZE")

SLURM = {
    **{"SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"},
    **{"SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "2", "SLURM_JOB_ID": "4711"},
}
TORCHRUN = {
    **{"TORCHELASTIC_RUN_ID": "none", "RANK": "3", "LOCAL_RANK": "1", "GROUP_RANK": "1"},
    **{"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "2"},
    **{"MASTER_ADDR": "host0", "MASTER_PORT": "29500"},
}
LSF = {
    **{"LSB_JOBID": "4711", "LSB_DJOB_RANKFILE": "ranks", "JSM_NAMESPACE_SIZE": "4"},
    **{"JSM_NAMESPACE_LOCAL_RANK": "1", "JSM_NAMESPACE_RANK": "3"},
}
OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that no launcher has touched."""
    for name in list(processes.os.environ):
        if name.startswith(PREFIXES) or name in (*RANKS, "LOCAL_WORLD_SIZE"):
            monkeypatch.delenv(name)
    return monkeypatch


def set_all(environment: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)


def lightnings_rank(devices: int = 2) -> int:
    """As the Trainer finds it, or as a strategy of `devices` processes tells Lightning's own."""
    for launcher in LAUNCHERS:
        if launcher.detect():
            if launcher is LSFEnvironment:  # it reads a file of hosts first
                return int(processes.os.environ["JSM_NAMESPACE_RANK"])
            return launcher().global_rank()
    own = LightningEnvironment()
    return own.node_rank() * devices + own.local_rank()


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"LOCAL_RANK": "1"},
        {"NODE_RANK": "1"},
        {"GROUP_RANK": "1"},
        {"NODE_RANK": "0", "GROUP_RANK": "1"},
        {"RANK": "1", "WORLD_SIZE": "2"},  # Lightning does not ask
        TORCHRUN,
        TORCHRUN | {"RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0"},
        SLURM,
        SLURM | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
        SLURM | {"SLURM_JOB_NAME": "interactive"},
        SLURM | {"SLURM_JOB_NAME": "bash", "LOCAL_RANK": "1"},
        SLURM | TORCHRUN | {"SLURM_PROCID": "0"},  # one torchrun on each host
        LSF,
        LSF | {"JSM_NAMESPACE_RANK": "0"},
        {name: value for name, value in LSF.items() if name != "JSM_NAMESPACE_LOCAL_RANK"},
        OPEN_MPI,  # without mpi4py
    ],
    ids=lambda variables: "-".join(f"{k}={v}" for k, v in list(variables.items())[:3]) or "alone",
)
def test_the_process_that_talks_is_lightnings_first(
    environment: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    set_all(environment, variables)
    environment.setattr(processes, "find_spec", lambda name: None)
    assert (global_rank() == 0) == (lightnings_rank() == 0)


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize(("name_of_rank", "name_of_size"), processes.MPI)
def test_mpi_is_asked_where_lightning_asks_it(
    environment: pytest.MonkeyPatch, name_of_rank: str, name_of_size: str, rank: int, size: int
) -> None:
    """With a stand-in for mpi4py, which knows what `mpirun` has told."""
    rank = min(rank, size - 1)
    world = SimpleNamespace(Get_size=lambda: size, Get_rank=lambda: rank)
    module = ModuleType("mpi4py")
    module.__spec__ = ModuleSpec("mpi4py", None)
    module.MPI = SimpleNamespace(COMM_WORLD=world)  # type: ignore[attr-defined]
    environment.setitem(sys.modules, "mpi4py", module)
    environment.setattr(
        "lightning.fabric.plugins.environments.mpi._MPI4PY_AVAILABLE", True, raising=True
    )
    set_all(environment, {name_of_rank: str(rank), name_of_size: str(size)})
    assert MPIEnvironment.detect() == (size > 1)
    assert global_rank() == lightnings_rank() == rank


# Command lines ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("started", "printed"),
    [
        ("train.py", "PYTHON train.py"),
        ("../a copy/train.py", "PYTHON '../a copy/train.py'"),
        ("/home/me/train.py", "PYTHON /home/me/train.py"),
        ("/lib/lightning_embed/__main__.py", "PYTHON -m lightning_embed"),
        ("/nowhere/bin/lightning-embed", "/nowhere/bin/lightning-embed"),
        ("/usr/bin/pytest", "PYTHON train.py"),
        ("", "PYTHON train.py"),
    ],
)
def test_the_program_is_named_as_it_was_started(
    environment: pytest.MonkeyPatch, tmp_path: Path, started: str, printed: str
) -> None:
    python = tmp_path / "python"
    python.touch(mode=0o755)
    environment.setattr(sys, "argv", [started])
    environment.setattr(sys, "executable", str(python))
    environment.setenv("PATH", "/nowhere")
    words = shlex.split(printed.replace("PYTHON", shlex.quote(str(python))))
    assert shlex.split(command("fit", "--name", "a b")) == [*words, "fit", "--name", "a b"]
    environment.setenv("PATH", str(tmp_path))  # now a shell finds it by its name
    short = printed.replace("PYTHON", "python")
    assert command("fit", "--name", "a b") == f"{short} fit --name 'a b'"


def test_a_notebook_is_told_what_its_folder_can_start(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setattr(sys, "argv", ["/lib/ipykernel_launcher.py"])
    assert command("version").endswith(" train.py version")  # in this project's folder
    environment.chdir(tmp_path)
    assert command("version").endswith(" -m lightning_embed version")


def test_an_installed_program_goes_by_its_name_where_a_shell_finds_it(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "lightning-embed"
    program.touch(mode=0o755)
    environment.setattr(sys, "argv", [str(program)])
    environment.setenv("PATH", str(tmp_path))
    assert command("version") == "lightning-embed version"


@pytest.mark.parametrize(
    ("variables", "printed"),
    [
        ({}, "PROGRAM train.py fit"),
        (
            TORCHRUN | {"GROUP_WORLD_SIZE": "1"},
            "torchrun --standalone --nproc_per_node 2 train.py fit",
        ),
        (
            TORCHRUN,
            "torchrun --nnodes 2 --node_rank 1 --master_addr host0 --master_port 29500"
            " --nproc_per_node 2 train.py fit",
        ),
        (SLURM, "srun --nodes=2 --ntasks-per-node=2 PROGRAM train.py fit"),
        (SLURM | {"SLURM_JOB_NAME": "bash"}, "PROGRAM train.py fit"),
        (SLURM | {"SLURM_NTASKS": "1"}, "PROGRAM train.py fit"),
        (LSF, "jsrun -n 4 PROGRAM train.py fit"),
        (OPEN_MPI, "mpirun -n 4 PROGRAM train.py fit"),
    ],
)
def test_a_run_of_several_processes_goes_on_with_as_many(
    environment: pytest.MonkeyPatch, variables: dict[str, str], printed: str
) -> None:
    set_all(environment, variables)
    environment.setattr(processes, "find_spec", lambda name: "mpi4py")
    environment.setattr(sys, "argv", ["train.py"])
    program = command().removesuffix(" train.py")
    assert command_of_all("fit") == printed.replace("PROGRAM", program)
    assert command("generate") == f"{program} train.py generate"  # that needs one


def test_torchrun_starts_a_module_too(environment: pytest.MonkeyPatch) -> None:
    set_all(environment, TORCHRUN | {"GROUP_WORLD_SIZE": "1"})
    environment.setattr(sys, "argv", ["/lib/lightning_embed/__main__.py"])
    assert command_of_all("fit").endswith("--nproc_per_node 2 -m lightning_embed fit")


# Signals ------------------------------------------------------------------------------------------


def test_a_closed_terminal_stops_a_run_but_not_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        assert {"SIGHUP", "SIGINT", "SIGTERM", "SIGUSR1"} <= {x.name for x in stop_signals()}
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        assert signal.SIGHUP not in stop_signals()
    finally:
        signal.signal(signal.SIGHUP, before)
