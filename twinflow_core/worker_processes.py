"""Pure functions of one shard, run by several processes, their results in order and few of them waiting."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from itertools import chain, islice
from multiprocessing import get_context
from typing import TypeVar

from twinflow_core.dask_workers import dask_workers
from twinflow_core.errors import InfrastructureError
from twinflow_core.params import RunParams
from twinflow_core.ray_workers import ray_workers

Task = TypeVar("Task")
Result = TypeVar("Result")

# An executor, and how many shards it runs at a time.
Cluster = AbstractContextManager[tuple[Executor, int]]

# Shards that a worker has finished or begun before the first of them was taken.
_AHEAD = 2


def worker_count(wanted: int) -> int:
    """How many processes to use: as many as wanted, or one a core for 0."""
    if wanted:
        return wanted
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cluster_of(run: RunParams) -> Cluster | None:
    """The workers elsewhere that the params name, if any."""
    if run.dask is not None:
        return dask_workers(run.dask)
    return ray_workers(run.ray) if run.ray is not None else None


def map_shards(
    work: Callable[[Task], Result], tasks: Iterable[Task], workers: int, cluster: Cluster | None = None
) -> Iterator[Result]:
    """`work` of each task, in the tasks' order, whatever the number of processes.

    With one worker, or one task, it runs in this process. A function for several must be importable by name,
    and tasks and results must be small: they are pickled.

    Args:
        work: a pure function of its task (and of the files that it names).
        tasks: one a shard; few of them are taken ahead.
        workers: how many processes at most; 0 means one a core.
        cluster: workers on the same disk that take the place of processes; see `cluster_of`.

    Raises:
        InfrastructureError: a worker was killed, most often for want of memory; also as the cluster.
        TwinflowError: as the cluster.
    """
    if cluster is not None:
        with cluster as (pool, count):
            yield from _in_order(pool, work, tasks, count)
        return
    remaining = iter(tasks)
    first = list(islice(remaining, 2))
    tasks, workers = chain(first, remaining), worker_count(workers)
    if workers == 1 or len(first) < 2:
        yield from map(work, tasks)
        return
    # Not forked: the libraries inside hold threads and locks that a fork would break.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from _in_order(pool, work, tasks, workers)


def _in_order(
    pool: Executor, work: Callable[[Task], Result], tasks: Iterable[Task], workers: int
) -> Iterator[Result]:
    waiting: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(work, task))
            if len(waiting) >= _AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except Exception as error:
        if not _worker_ended(error):
            raise
        raise InfrastructureError(
            "A worker process ended while it worked.",
            where=f"{workers} workers",
            fix="Free memory, or lower run.workers in params.yaml, and run again.",
        ) from None
    finally:
        for future in waiting:
            future.cancel()


def _worker_ended(error: Exception) -> bool:
    """Whether the process is gone; Dask and Ray, whose errors need not be importable here, try again first."""
    return isinstance(error, BrokenProcessPool) or type(error).__name__ in (
        "KilledWorker",
        "WorkerCrashedError",
    )
