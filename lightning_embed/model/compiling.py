"""Whether `torch.compile` works here and pays, and how it is set up.

Knows: what it needs, what it costs, which of its settings a language model wants. Leaves to others:
what is compiled (`model.py`) and from which step on (`lightning_module.py`).
"""

import os
import platform
import shutil
import sys
from functools import cache

import torch

# A training run's floating-point operations for each thread, from which on compiling saves more on
# a processor than it takes: with two threads 33 s, once, against 3 s saved by 10**12 operations
# (`benchmarks/compiling.py`).
PAYS_FROM = 6e12


@cache
def why_not_compile(device_type: str) -> str | None:
    """None where `torch.compile` works for such a device, else the reason in a few words.

    Asked beforehand, because compiling fails at the first call and not at construction.
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
    """Whether a run of so many floating-point operations in this process is over sooner compiled.

    It must not depend on measured time: a run's arithmetic would then differ from one time to the
    next. Nor does it on what is compiled already, which saves a short run next to nothing.
    """
    return device.type != "cpu" or flops >= PAYS_FROM * torch.get_num_threads()


def set_up_compiler() -> None:
    """Settings of torch's compiler, for the whole process.

    Equal sizes are not taken for the same size (a batch as long as the model is wide would be a
    graph of its own), and a norm's epsilon stays a number (as an input of the graph it has
    everything traced twice). On x86 the processor's own word is taken for its vector instructions:
    trying each in a program of its own takes 6 s.
    """
    import torch._dynamo  # takes seconds to import
    import torch._inductor.config
    import torch.fx.experimental._config

    torch.fx.experimental._config.use_duck_shape = False
    torch._dynamo.config.specialize_float = True
    kernels = torch._inductor.config.cpp
    if kernels.vec_isa_ok is None and platform.machine() in ("x86_64", "AMD64"):
        kernels.vec_isa_ok = True
