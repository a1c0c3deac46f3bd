"""Whether `torch.compile` works on this machine, whether it saves time, and its settings.

`decoder.py` says what is compiled, `lightning_module.py` from which step on.
"""

import os
import shutil
import sys
from functools import cache

import torch

from lightning_embed.arithmetic import is_half
from lightning_embed.library_internals import cpp_compiler

# Floating-point operations of a training run, for each CPU thread, above which compiling saves more
# time than it takes: with two threads it takes 33 s, once, and saves 3 s in 10**12 operations
# (`benchmarks/compiling.py`). Products in float32 leave little else that could be saved, 3 % of a
# step.
PAYS_FROM, PAYS_FROM_IN_FLOAT32 = 6e12, 6e13


@cache
def why_not_compile(device_type: str) -> str | None:
    """None where `torch.compile` works for this type of device, else the reason in a few words.

    To be asked before compiling, which would fail only at the first call of a compiled module.
    """
    if sys.platform == "win32":
        return "torch.compile is not tested on Windows"
    if device_type == "cuda":
        try:
            import triton  # noqa: F401
        except ImportError:
            return "no Triton found"
        if "CC" in os.environ or any(map(shutil.which, ("cc", "gcc", "clang"))):
            return None
        return "no C compiler found, which Triton needs"
    compiler = cpp_compiler()
    if compiler is None:
        return "no C++ compiler found"
    return None if shutil.which(compiler) else f"the C++ compiler {compiler} is not there"


def compiling_saves(width: int, precision: str) -> float:
    """Part of an eager step's time that compiling saves on a CPU, from steps of 8 rows of 256 at
    widths 64, 128 and 256: 0.39, 0.22, 0.12 in bfloat16; -0.05, 0.02, 0.05 in float32."""
    return min(0.4, 28 / width) if is_half(precision) else 0.03


def compiling_pays(flops: float, device: torch.device, precision: str) -> bool:
    """Whether a run of `flops` floating-point operations in this process ends sooner compiled.

    It does not depend on measured time, because a run's arithmetic would then differ from one time
    to the next; nor on what the compiler's cache holds, which saves a short run next to nothing.
    """
    pays_from = PAYS_FROM if is_half(precision) else PAYS_FROM_IN_FLOAT32
    return device.type != "cpu" or flops >= pays_from * torch.get_num_threads()
