"""Which number format this machine multiplies in fastest, and the precision that follows from it.

A format without units of its own is emulated, up to a hundred times slower than float32, and both
torch and the processor's flags may call it supported all the same. So a small product is timed.
"""

import platform
import time
from typing import NamedTuple

import torch

from lightning_embed.library_internals import fast_bfloat16

# Rows and columns of the product that is timed: 30 ms on a processor that emulates bfloat16.
PROBED = {"cpu": 256, "cuda": 2048}
ARM = ("arm64", "aarch64")


class Format(NamedTuple):
    """What matrices are multiplied in, and why."""

    dtype: torch.dtype
    reason: str

    @property
    def name(self) -> str:
        """Of its dtype, such as "bfloat16"."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def precision(self) -> str:
        """As Lightning names it: parameters stay float32, products are in `dtype`."""
        return {torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}.get(self.dtype, "32-true")


def is_half(precision: str) -> bool:
    """Whether a precision, as Lightning names it, has its products in 16 bits."""
    return precision.startswith(("bf16", "16"))


def fastest_format(accelerator: str) -> Format:
    """bfloat16 where the device has units for it, else float16 on a GPU that is faster with it,
    else float32.

    Args:
        accelerator: "cpu", "cuda" or another type of device.
    """
    if accelerator == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Format(torch.bfloat16, "the GPU has bfloat16")
        if speed_of(torch.float16, "cuda") > 1:
            return Format(torch.float16, "the GPU has float16 only")
        return Format(torch.float32, "the GPU has neither bfloat16 nor fast float16")
    if accelerator != "cpu":
        return Format(torch.float32, f"half precision is not tested on {accelerator}")
    units = fast_bfloat16() or ("bfloat16" if platform.machine() in ARM else None)
    if units is None:
        return Format(torch.float32, "no fast bfloat16 found")
    if speed_of(torch.bfloat16, "cpu") > 1:
        return Format(torch.bfloat16, f"the processor has {units}")
    return Format(torch.float32, "bfloat16 is slower than float32 here")


def speed_of(dtype: torch.dtype, device: str) -> float:
    """Speed of a product in `dtype` to that of the same in float32: above 1.4 where there are units
    for it, below 0.5 where it is emulated. Takes at most a tenth of a second.

    With one thread, because several wait for each other where the machine has other work, and then
    any two formats look alike.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _seconds(torch.float32, device) / _seconds(dtype, device)
    finally:
        torch.set_num_threads(threads)


def _seconds(dtype: torch.dtype, device: str) -> float:
    """The best of three calls after one that selects a kernel."""
    square = torch.ones(PROBED[device], PROBED[device], dtype=dtype, device=device)

    def once() -> float:
        began = time.perf_counter()
        product = square @ square
        product[0, 0].item()  # waits for the device
        return time.perf_counter() - began

    once()
    return min(once() for _ in range(3))
