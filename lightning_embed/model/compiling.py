"""Whether `torch.compile` works on this machine, whether it saves time, and its settings.

`decoder.py` says what is compiled, `lightning_module.py` from which step on.
"""

import os
import platform
import shutil
import sys
from functools import cache

import torch

# Floating-point operations of a training run, for each CPU thread, above which compiling saves more
# time than it takes: with two threads it takes 33 s, once, and saves 3 s in 10**12 operations
# (`benchmarks/compiling.py`).
PAYS_FROM = 6e12


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
    from torch._inductor import cpp_builder, exc

    try:
        compiler = cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        return "no C++ compiler found"
    return None if shutil.which(compiler) else f"the C++ compiler {compiler} is not there"


def compiling_pays(flops: float, device: torch.device) -> bool:
    """Whether a run of `flops` floating-point operations in this process ends sooner compiled.

    It does not depend on measured time, because a run's arithmetic would then differ from one time
    to the next; nor on what the compiler's cache holds, which saves a short run next to nothing.
    """
    return device.type != "cpu" or flops >= PAYS_FROM * torch.get_num_threads()


def set_up_compiler() -> None:
    """Settings of torch's compiler, for the whole process.

    Dimensions that happen to be equal stay separate symbols: else a batch as long as the model is
    wide would have a graph of its own. A norm's epsilon stays a constant: as an input of the graph
    it would have everything traced twice. On x86 trust the CPU's feature flags: trying each vector
    instruction set in a program of its own takes 6 s.
    """
    import torch._dynamo  # takes seconds to import
    import torch._inductor.config
    import torch.fx.experimental._config

    torch.fx.experimental._config.use_duck_shape = False
    torch._dynamo.config.specialize_float = True
    kernels = torch._inductor.config.cpp
    if kernels.vec_isa_ok is None and platform.machine() in ("x86_64", "AMD64"):
        kernels.vec_isa_ok = True
