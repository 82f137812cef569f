"""Shards on a real Ray cluster: in order, to the same bytes, and on no node that is unlike this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.shard_engines import (
    an_encoding_has_the_bytes_of_one_process,
    results_are_in_order_from_other_processes_and_errors_come_whole,
)
from tests.test_worker_processes import killed, square
from twinflow_core.errors import ExitCode, InfrastructureError, TwinflowError
from twinflow_core.local.loopback import free_ports
from twinflow_core.params import RunParams
from twinflow_core.ray_workers import ray_workers
from twinflow_core.worker_processes import map_shards


def test_without_the_extra_one_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(TwinflowError, match="Ray is not installed") as caught:
        list(map_shards(square, range(3), 1, ray_workers("127.0.0.1:1")))
    assert caught.value.code == ExitCode.WRONG_INPUT


def test_shards_go_to_one_engine() -> None:
    with pytest.raises(ValueError, match="Dask or to Ray"):
        RunParams(stage_timeout_minutes=1, stage_retries=0, dask="tcp://10.0.0.1:8786", ray="10.0.0.1:6379")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of one node with two cores."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        # What Ray gives its workers where nothing is set.
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # All on loopback, by the switch that Ray has for systems other than Linux.
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        (port,) = free_ports(1)
        told = {"num_cpus": 2, "node_ip_address": "127.0.0.1", "redis_port": port, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=told)
        yield cluster.address
        cluster.shutdown()


@pytest.mark.slow
def test_results_are_in_order_from_other_processes_and_errors_come_whole(address: str) -> None:
    results_are_in_order_from_other_processes_and_errors_come_whole(partial(ray_workers, address))


@pytest.mark.slow
def test_an_encoding_by_ray_has_the_bytes_of_one_process(
    address: str, tiny_pipeline: Path, tmp_path: Path
) -> None:
    an_encoding_has_the_bytes_of_one_process("ray", address, tiny_pipeline, tmp_path)


@pytest.mark.slow
def test_a_node_that_is_not_like_this_process_gets_no_shard(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with pytest.raises(TwinflowError, match=r"another OMP_NUM_THREADS or cores: .*, here 7") as caught:
        list(map_shards(square, range(3), 1, ray_workers(address)))
    assert caught.value.code == ExitCode.WRONG_INPUT


@pytest.mark.slow
def test_shards_that_kill_their_workers_are_an_infrastructure_error(address: str, tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="worker process ended"):
        list(map_shards(killed, [tmp_path] * 2, 1, ray_workers(address)))


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_told() -> None:
    pytest.importorskip("ray")
    (port,) = free_ports(1)
    with pytest.raises(InfrastructureError, match="does not answer"):
        list(map_shards(square, range(3), 1, ray_workers(f"127.0.0.1:{port}")))
