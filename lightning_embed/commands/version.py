"""The `version` command, also `--version`: what a bug report needs to say of a machine."""

import os
import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

PACKAGES = ("torch", "lightning", "torchmetrics", "tokenizers", "datasets", "tensorboard")


def version() -> None:
    """Show the versions of this program, its libraries and Python, and the class of the machine."""
    print("\n".join(f"{name:<16}{value}" for name, value in facts().items()))


def facts() -> dict[str, str]:
    """Versions and the machine, by name."""
    import torch

    import lightning_embed
    from lightning_embed.library_internals import fast_bfloat16

    found = {"lightning_embed": lightning_embed.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = installed(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    found["system"] = f"{platform.system()} {platform.release()} {platform.machine()}"
    found["processor"] = (
        f"{torch.backends.cpu.get_cpu_capability()}, {fast_bfloat16() or 'no fast bfloat16'},"
        f" {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    )
    gpus = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    found["gpu"] = ", ".join(gpus) or "none"
    return found
