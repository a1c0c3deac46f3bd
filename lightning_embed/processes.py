"""Which of a run's processes this is, before torch.distributed knows, and how it was started.

Lightning finds ranks in the environment of whatever launched the processes; the same variables are
read here, under the same conditions, because text is prepared and lines are printed before there is
a Trainer to ask.
"""

import os
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path


def global_rank() -> int:
    """0 in the process that talks and writes; others only compute."""
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:  # torchrun
        return int(env.get("RANK", 0))
    if _is_slurm():
        return int(env.get("SLURM_PROCID", 0))
    if {"LSB_JOBID", "LSB_DJOB_RANKFILE", "JSM_NAMESPACE_SIZE"} <= env.keys():  # LSF
        return int(env.get("JSM_NAMESPACE_RANK", 0))
    if find_spec("mpi4py") is not None:  # Lightning asks MPI only where this is installed
        for name in ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK"):
            if name in env:
                return int(env[name])
    return max(int(env.get(name, 0)) for name in ("RANK", "LOCAL_RANK", "NODE_RANK"))


def is_main_process() -> bool:
    return global_rank() == 0


def _is_slurm() -> bool:
    """Whether `srun` started this process as one of several tasks; a shell in an allocation has its
    variables too, and Lightning tells it by the job's name."""
    name = os.environ.get("SLURM_JOB_NAME")
    return "SLURM_NTASKS" in os.environ and name not in ("bash", "interactive")


def command(*words: str | Path) -> str:
    """A command line of this program that can be pasted where it was started from."""
    return shlex.join([*_launcher(), *_program(), *map(str, words)])


def _program() -> list[str]:
    """`python train.py`, `lightning-embed` or `python -m lightning_embed`, as it was started."""
    started = Path(sys.argv[0]) if sys.argv and sys.argv[0] else Path("train.py")
    if started.name == "__main__.py" and started.parent.name == "lightning_embed":
        return ["python", "-m", "lightning_embed"]
    if started.stem == "lightning-embed":
        return ["lightning-embed"]
    return ["python", str(started) if started.name == "train.py" else "train.py"]


def _launcher() -> list[str]:
    """What started several processes of it at once, if anything did."""
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:
        hosts, each = env.get("GROUP_WORLD_SIZE", "1"), env.get("LOCAL_WORLD_SIZE", "1")
        return ["torchrun", "--nnodes", hosts, "--nproc_per_node", each]
    if _is_slurm() and int(env["SLURM_NTASKS"]) > 1:
        return ["srun"]
    return []
