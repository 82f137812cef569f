"""Whether a worker on another machine would give a shard the bytes that this process would give it.

What a shard becomes depends on the code, the libraries and, for sums of floats, the number of threads. A worker that
differs in any of them would give other bytes under the same name, so it is refused.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

from twinflow_core.errors import TwinflowError

LIBRARIES = ("diffusers", "numpy", "pillow", "pyarrow", "torch", "transformers")


def surroundings() -> dict[str, str]:
    """What a shard's bytes depend on beside its task, by name."""
    digest = hashlib.sha256()
    package = Path(__file__).parent
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\0".encode() + path.read_bytes())
    return {
        "code of twinflow_core": digest.hexdigest()[:12],
        "Python": platform.python_version(),
        "OMP_NUM_THREADS or cores": os.environ.get("OMP_NUM_THREADS") or str(os.cpu_count()),
        **{name: version(name) for name in LIBRARIES},
    }


def require_alike(kind: str, told: Iterable[tuple[str, object]], fix: str) -> None:
    """Refuse workers that differ from this process.

    Args:
        kind: of worker, with an article, as the beginning of a sentence.
        told: each worker's name, and what `surroundings` gave there, or the error that came instead.
        fix: how to start workers that are alike.

    Raises:
        TwinflowError: one of them differs.
    """
    here = surroundings()
    for worker, its in told:
        if fault := _difference(here, its):
            raise unlike(kind, worker, fault, fix)


def unlike(kind: str, worker: str, fault: str, fix: str) -> TwinflowError:
    """The error that a worker is refused with; `fault` follows "it"."""
    return TwinflowError(f"{kind} is not like this machine: it {fault}.", where=worker, fix=fix)


def _difference(here: Mapping[str, str], told: object) -> str | None:
    if not isinstance(told, dict):
        return f"cannot run this project's code ({told})"
    differing = [name for name, value in here.items() if told.get(name) != value]
    if not differing:
        return None
    return f"has another {differing[0]}: {told.get(differing[0])}, here {here[differing[0]]}"
