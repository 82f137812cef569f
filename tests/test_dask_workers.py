"""Shards on a real Dask scheduler's workers: in order, to the same bytes, and on none that is unlike this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.shard_engines import (
    an_encoding_has_the_bytes_of_one_process,
    results_are_in_order_from_other_processes_and_errors_come_whole,
)
from tests.test_worker_processes import killed, square
from twinflow_core.dask_workers import dask_workers
from twinflow_core.errors import ExitCode, InfrastructureError, TwinflowError
from twinflow_core.worker_processes import map_shards


def test_without_the_extra_one_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(TwinflowError, match="Dask is not installed") as caught:
        list(map_shards(square, range(3), 1, dask_workers("tcp://127.0.0.1:1")))
    assert caught.value.code == ExitCode.WRONG_INPUT


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as made:
        yield made


@pytest.mark.slow
def test_results_are_in_order_from_other_processes_and_errors_come_whole(cluster: Any) -> None:
    results_are_in_order_from_other_processes_and_errors_come_whole(
        partial(dask_workers, cluster.scheduler_address)
    )


@pytest.mark.slow
def test_an_encoding_by_dask_has_the_bytes_of_one_process(
    cluster: Any, tiny_pipeline: Path, tmp_path: Path
) -> None:
    an_encoding_has_the_bytes_of_one_process("dask", cluster.scheduler_address, tiny_pipeline, tmp_path)


@pytest.mark.slow
def test_a_worker_that_is_not_like_this_process_gets_no_shard(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with pytest.raises(TwinflowError, match=r"another OMP_NUM_THREADS or cores: .*, here 7") as caught:
        list(map_shards(square, range(3), 1, dask_workers(cluster.scheduler_address)))
    assert caught.value.code == ExitCode.WRONG_INPUT


@pytest.mark.slow
def test_a_scheduler_that_is_not_there_and_one_without_workers_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr("twinflow_core.dask_workers.SECONDS_TO_ANSWER", 1)
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0") as empty:
        address = empty.scheduler_address
        with pytest.raises(InfrastructureError, match="has no worker"):
            list(map_shards(square, range(3), 1, dask_workers(address)))
    with pytest.raises(InfrastructureError, match="does not answer"):
        list(map_shards(square, range(3), 1, dask_workers(address)))


@pytest.mark.slow
def test_shards_that_kill_their_workers_are_an_infrastructure_error(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="worker process ended"):
        list(map_shards(killed, [tmp_path] * 2, 1, dask_workers(cluster.scheduler_address)))
