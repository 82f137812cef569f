"""Workers of a Dask scheduler, in place of processes of this machine, once they are found to be like it.

What a shard becomes depends on the code, the libraries and, for sums of floats, the number of threads. A worker that
differs in any of them would give other bytes under the same name, so it is refused.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from twinflow_core.errors import InfrastructureError, TwinflowError

KEY = "params.yaml: run.dask"
LIBRARIES = ("diffusers", "numpy", "pillow", "pyarrow", "torch", "transformers")
SECONDS_TO_ANSWER = 10


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


@contextmanager
def dask_workers(address: str) -> Iterator[tuple[Executor, int]]:
    """An executor that runs functions on a scheduler's workers, and how many there are.

    Args:
        address: of the scheduler, like tcp://10.0.0.1:8786.

    Raises:
        TwinflowError: Dask is not installed here, or a worker is not like this process.
        InfrastructureError: no scheduler answers, or it has no worker.
    """
    try:
        from distributed import Client
    except ImportError:
        raise TwinflowError(
            "Dask is not installed.", where=KEY, fix="Install the extra `dask`, or set run.dask to null."
        ) from None
    try:
        client = Client(address, timeout=SECONDS_TO_ANSWER, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InfrastructureError(
            f"The Dask scheduler does not answer ({type(error).__name__}).",
            where=f"{KEY} = {address}",
            fix="Start it (`dask scheduler`), or correct the address.",
        ) from error
    with client:
        _require_alike(address, client.nthreads(), client.run(surroundings, on_error="return"))
        yield client.get_executor(pure=False), len(client.nthreads())


def _require_alike(address: str, threads: dict[str, int], found: dict[str, object]) -> None:
    if not threads:
        raise InfrastructureError(
            "The Dask scheduler has no worker.",
            where=f"{KEY} = {address}",
            fix=f"Start some: dask worker {address} --nthreads 1",
        )
    here = surroundings()
    for worker, told in found.items():
        if threads[worker] != 1:
            fault = f"runs {threads[worker]} shards at a time in one process"
        elif not isinstance(told, dict):
            fault = f"cannot run this project's code ({told})"
        elif differing := [name for name, value in here.items() if told.get(name) != value]:
            fault = f"has another {differing[0]}: {told.get(differing[0])}, here {here[differing[0]]}"
        else:
            continue
        raise TwinflowError(
            f"A Dask worker is not like this machine: it {fault}.",
            where=worker,
            fix="Start workers with --nthreads 1 in this clone, its environment and the same OMP_NUM_THREADS.",
        )
