"""What a benchmark's figures depend on: processor, cores, versions. Never the machine's name."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("torch", "onnxruntime-gpu", "diffusers", "numpy")


def machine_fingerprint() -> dict[str, object]:
    """Processor model, usable cores, system, Python and library versions, and how busy the machine was.

    Returns:
        `load_before` is the one-minute load average: above 0.5 or so, other work slowed the figures down.
    """
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "load_before": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
