"""Workers of a Dask scheduler, in place of processes of this machine, once they are found to be like it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from twinflow_core.errors import InfrastructureError, TwinflowError
from twinflow_core.worker_surroundings import require_alike, surroundings, unlike

KEY = "params.yaml: run.dask"
KIND = "A Dask worker"
FIX = "Start workers with --nthreads 1 in this clone, its environment and the same OMP_NUM_THREADS."
SECONDS_TO_ANSWER = 10


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
    for worker, count in threads.items():
        if count != 1:
            raise unlike(KIND, worker, f"runs {count} shards at a time in one process", FIX)
    require_alike(KIND, found.items(), FIX)
