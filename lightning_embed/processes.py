"""Which of a run's processes this is, how it was started, and what asks it to stop.

Lightning finds ranks in the environment of whatever launched the processes; the same variables are
read here, under the same conditions, because text is prepared and lines are printed before there is
a Trainer to ask.
"""

import os
import shlex
import shutil
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

# Ctrl-C, `kill`, a closed terminal, and what batch systems send before a job's time is over.
STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGBREAK")

LSF = {"LSB_JOBID", "LSB_DJOB_RANKFILE", "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_SIZE"}
MPI = (  # Open MPI, MPICH and Intel MPI, MVAPICH: rank and number of processes
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
)


def global_rank() -> int:
    """0 in the process that talks and writes; others only compute."""
    env = os.environ
    if _is_torchrun():
        return int(env.get("RANK", 0))
    if _is_slurm():
        return int(env.get("SLURM_PROCID", 0))
    if env.keys() >= LSF:
        return int(env.get("JSM_NAMESPACE_RANK", 0))
    if (mpi := _mpi()) is not None:
        return mpi[0]
    # Lightning's own launcher. What else sets RANK, Lightning does not ask.
    node = env.get("NODE_RANK", env.get("GROUP_RANK", 0))
    return max(int(node), int(env.get("LOCAL_RANK", 0)))


def is_main_process() -> bool:
    return global_rank() == 0


def started_from_outside() -> str | None:
    """What started this process as one of several, in a word; None if it is the only one so far,
    which starts others itself."""
    env = os.environ
    if _is_torchrun():
        return "torchrun" if int(env.get("WORLD_SIZE", 1)) > 1 else None
    if _is_slurm():
        return "srun" if int(env["SLURM_NTASKS"]) > 1 else None
    if env.keys() >= LSF:
        return "jsrun" if int(env["JSM_NAMESPACE_SIZE"]) > 1 else None
    if _mpi() is not None:
        return "mpirun"
    return "LOCAL_RANK in the environment" if "LOCAL_RANK" in env else None


def _is_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def _is_slurm() -> bool:
    """Whether `srun` started this process as one of several tasks; a shell in an allocation has its
    variables too, and Lightning tells it by the job's name."""
    name = os.environ.get("SLURM_JOB_NAME")
    return "SLURM_NTASKS" in os.environ and name not in ("bash", "interactive")


def _mpi() -> tuple[int, int] | None:
    """Rank and number of processes that `mpirun` started; Lightning asks MPI only for several, and
    only where mpi4py is installed."""
    env = os.environ
    for rank, size in MPI:
        if rank in env and int(env.get(size, 1)) > 1 and find_spec("mpi4py") is not None:
            return int(env[rank]), int(env[size])
    return None


def stop_signals() -> list[signal.Signals]:
    """What asks this process to stop. Under `nohup` a closed terminal does not."""
    found = [getattr(signal, name) for name in STOP_SIGNALS if hasattr(signal, name)]
    return [x for x in found if x.name != "SIGHUP" or signal.getsignal(x) != signal.SIG_IGN]


# Command lines -----------------------------------------------------------------------------------


def command(*words: str | Path) -> str:
    """A command line of this program that can be pasted where it was started from."""
    return shlex.join([*_program(), *map(str, words)])


def install_command(*packages: str | Path) -> str:
    """One that installs packages for this Python, which may not be the one that `pip` is for."""
    python = _typed(sys.executable, "python", "python3")
    return shlex.join([python, "-m", "pip", "install", *map(str, packages)])


def command_of_all(*words: str | Path) -> str:
    """The same for as many processes as were started: `torchrun`, `srun` and their like in front,
    with what this host's processes were given."""
    env = os.environ
    if _is_torchrun():
        nodes = env.get("GROUP_WORLD_SIZE", "1")
        where = ["--standalone"]
        if nodes != "1":
            where = ["--nnodes", nodes, "--node_rank", env.get("GROUP_RANK", "0")]
            where += ["--master_addr", env["MASTER_ADDR"], "--master_port", env["MASTER_PORT"]]
        launcher = ["torchrun", *where, "--nproc_per_node", env.get("LOCAL_WORLD_SIZE", "1")]
        return shlex.join([*launcher, *_script(), *map(str, words)])  # it brings its own Python
    launcher = []
    if _is_slurm() and int(env["SLURM_NTASKS"]) > 1:
        each = env.get("SLURM_NTASKS_PER_NODE", env["SLURM_NTASKS"])
        launcher = ["srun", f"--nodes={env.get('SLURM_NNODES', '1')}", f"--ntasks-per-node={each}"]
    elif env.keys() >= LSF:
        launcher = ["jsrun", "-n", env["JSM_NAMESPACE_SIZE"]]
    elif (mpi := _mpi()) is not None:
        launcher = ["mpirun", "-n", str(mpi[1])]
    return shlex.join([*launcher, *_program(), *map(str, words)])


def _script() -> list[str]:
    """What Python was started with: `train.py`, `-m lightning_embed`, or an installed script. From
    a program of somebody else's, what can be started in this folder."""
    started = Path(sys.argv[0]) if sys.argv else Path()
    if started.stem == "lightning-embed" or started.name == "train.py":
        return [str(started)]
    by_others = (started.name, started.parent.name) != ("__main__.py", "lightning_embed")
    if by_others and Path("train.py").is_file():
        return ["train.py"]
    return ["-m", "lightning_embed"]


def _program() -> list[str]:
    """`python train.py`, `lightning-embed` or `python -m lightning_embed`, as it was started."""
    script = _script()
    if Path(script[0]).stem == "lightning-embed":
        return [_typed(script[0], "lightning-embed")]
    return [_typed(sys.executable, "python", "python3"), *script]


def _typed(path: str, *names: str) -> str:
    """The name under which a shell finds this program, or else its path."""
    for name in names:
        if (found := shutil.which(name)) and os.path.abspath(found) == os.path.abspath(path):
            return name
    return path
