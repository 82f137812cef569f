"""GPUs by name: usable memory, peak of dense matrix products, bandwidth. Vendors' figures, not measured here."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from twinflow_core.errors import TwinflowError

GIB = 2**30
UNITS = {"GIB": 2**30, "GB": 10**9, "MIB": 2**20, "MB": 10**6}


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        name: as a user names it.
        memory: usable bytes.
        tflops: peak of dense bfloat16 matrix products with float32 sums, in 10^12 a second.
        tflops_float32: the same in float32.
        bandwidth: of its memory, in bytes a second.
    """

    name: str
    memory: int
    tflops: float
    tflops_float32: float
    bandwidth: float


def _gpu(name: str, mib: int, tflops: float, tflops_float32: float, terabytes: float) -> Gpu:
    return Gpu(name, mib * 2**20, tflops, tflops_float32, terabytes * 1e12)


GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu("rtx3090-24", 24576, 71, 35.6, 0.936),
        _gpu("rtx4090-24", 24564, 165, 82.6, 1.008),
        _gpu("rtx5090-32", 32607, 209, 104.8, 1.792),
        _gpu("l40s-48", 46068, 362, 91.6, 0.864),
        _gpu("a100-40", 40960, 312, 19.5, 1.555),
        _gpu("a100-80", 81920, 312, 19.5, 2.039),
        _gpu("h100-80", 81559, 989, 66.9, 3.35),
        _gpu("h200-141", 143771, 989, 66.9, 4.8),
        _gpu("b200-180", 183359, 2250, 75, 7.7),
    )
}


def find_gpu(name: str, memory: str = "", tflops: float = 0.0) -> Gpu:
    """A GPU by name, or one described by its memory and speed; what is described wins over what is named.

    Args:
        name: one of `GPUS`.
        memory: like 80GiB or 24GB; empty for the named one's.
        tflops: bfloat16 peak; 0 for the named one's.

    Raises:
        TwinflowError: the name or the size cannot be read.
    """
    if name not in GPUS:
        raise TwinflowError(
            f"No GPU is known as {name!r}.",
            where="--gpu",
            fix=f"Use one of: {', '.join(GPUS)}; or give --memory and --tflops.",
        )
    gpu = GPUS[name]
    if memory:
        gpu = replace(gpu, name=memory, memory=parse_size(memory))
    if tflops:
        # Memory and float32 are taken to keep pace.
        scale = tflops / gpu.tflops
        gpu = replace(
            gpu,
            name=f"{gpu.name}, {tflops:g} TFLOPS",
            tflops=tflops,
            tflops_float32=gpu.tflops_float32 * scale,
            bandwidth=gpu.bandwidth * scale,
        )
    return gpu


def parse_size(text: str) -> int:
    """Bytes of a size like 80GiB, 24GB or 24564MiB.

    Raises:
        TwinflowError: it is none.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([GM]i?B)\s*", text, re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        raise TwinflowError(f"{text!r} is no size.", where="--memory", fix="Write it like 80GiB or 24GB.")
    return round(float(match[1]) * UNITS[match[2].upper()])
