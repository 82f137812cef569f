"""Shards on a real Dask scheduler's workers: in order, to the same bytes, and on none that is unlike this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.encoding.prepared_folder import write_prepared
from tests.pipeline_clone import REPOSITORY
from tests.test_worker_processes import fail_at_three, killed, square, where
from twinflow_core.dask_workers import dask_workers
from twinflow_core.errors import ExitCode, InfrastructureError, TwinflowError
from twinflow_core.params import load_params
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
    address = cluster.scheduler_address
    assert list(map_shards(square, range(9), 1, dask_workers(address))) == [n * n for n in range(9)]
    assert os.getpid() not in list(map_shards(where, range(4), 1, dask_workers(address)))
    with pytest.raises(TwinflowError, match="Three is wrong") as caught:
        list(map_shards(fail_at_three, range(9), 1, dask_workers(address)))
    assert (caught.value.where, caught.value.fix) == ("here", "Use four.")


@pytest.mark.slow
def test_an_encoding_by_dask_has_the_bytes_of_one_process(
    cluster: Any, tiny_pipeline: Path, tmp_path: Path
) -> None:
    from twinflow_core.stages.encode import encode

    found = []
    for address in (None, cluster.scheduler_address):
        root = tmp_path / str(address is None)
        write_prepared(root, list(range(12)))
        (root / "models").mkdir()
        (root / "models/base").symlink_to(tiny_pipeline)
        document = yaml.safe_load((REPOSITORY / "tests/params.tiny.yaml").read_text())
        document["run"]["dask"] = address
        (root / "params.yaml").write_text(yaml.safe_dump(document))
        encode(load_params(root / "params.yaml"), root)
        found.append({path.name: path.read_bytes() for path in (root / "data/encoded").iterdir()})
    assert found[0] == found[1]
    assert len(found[0]) > 4


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
