"""Workers of a Ray cluster, in place of processes of this machine, once they are found to be like it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import partial
from typing import Any

from twinflow_core.errors import InfrastructureError, TwinflowError
from twinflow_core.worker_surroundings import require_alike, surroundings

KEY = "params.yaml: run.ray"
SECONDS_TO_ANSWER = 10


class RayExecutor(Executor):
    """Functions as tasks of a Ray cluster, one core each.

    Args:
        ray: the library, connected.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function on any worker; it is tried again where its worker dies, as often as Ray does that."""
        future: Future[Any] = Future()
        self._ray.remote(fn).remote(*args, **kwargs).future().add_done_callback(
            partial(self._hand_on, future)
        )
        return future

    def _hand_on(self, future: Future[Any], done: Future[Any]) -> None:
        """Give the result, or the function's own error without the traceback that Ray wraps it in."""
        if not future.set_running_or_notify_cancel():
            return
        error = done.exception()
        if error is None:
            future.set_result(done.result())
        else:
            future.set_exception(
                error.cause if isinstance(error, self._ray.exceptions.RayTaskError) else error
            )


@contextmanager
def ray_workers(address: str) -> Iterator[tuple[Executor, int]]:
    """An executor that runs functions on a cluster's nodes, and how many it runs at a time.

    Args:
        address: of the cluster, like 10.0.0.1:6379. This machine must be a node of it.

    Raises:
        TwinflowError: Ray is not installed here, or a node is not like this process.
        InfrastructureError: no cluster answers, or it has no core.
    """
    try:
        import ray
    except ImportError:
        raise TwinflowError(
            "Ray is not installed.", where=KEY, fix="Install the extra `ray`, or set run.ray to null."
        ) from None
    host, _, port = address.rpartition(":")
    try:
        # Ray itself would ask for minutes.
        socket.create_connection((host, int(port)), timeout=SECONDS_TO_ANSWER).close()
        ray.init(address, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError) as error:
        raise InfrastructureError(
            f"The Ray cluster does not answer: {' '.join(str(error).split())[:200]}",
            where=f"{KEY} = {address}",
            fix="Start it (`ray start`) and join this machine to it, or correct the address.",
        ) from error
    try:
        _require_alike(ray)
        yield RayExecutor(ray), int(ray.cluster_resources().get("CPU", 0))
    finally:
        ray.shutdown()


def _require_alike(ray: Any) -> None:
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if not nodes:
        raise InfrastructureError(
            "The Ray cluster has no core.", where=KEY, fix="Join a machine to it: ray start --address"
        )
    asked = [(str(node["NodeManagerAddress"]), _ask(ray, node["NodeID"])) for node in nodes]
    require_alike(
        "A Ray node",
        ((address, _answer(ray, answer)) for address, answer in asked),
        "Start it in this clone, its environment and the same OMP_NUM_THREADS; Ray sets 1 where none is.",
    )


def _ask(ray: Any, node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(surroundings).options(scheduling_strategy=there).remote()


def _answer(ray: Any, answer: Any) -> object:
    try:
        return ray.get(answer)
    except ray.exceptions.RayError as error:
        return error
