"""Results come in the order of their tasks; a worker that is killed is told of."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from twinflow_core.errors import InfrastructureError, TwinflowError
from twinflow_core.worker_processes import map_shards


def square(number: int) -> int:
    return number * number


def where(number: int) -> int:
    return os.getpid()


def fail_at_three(number: int) -> int:
    if number == 3:
        raise TwinflowError("Three is wrong.", where="here", fix="Use four.")
    return number


def killed(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_are_in_order_and_errors_come_whole(workers: int) -> None:
    assert list(map_shards(square, range(9), workers)) == [n * n for n in range(9)]
    with pytest.raises(TwinflowError, match="Three is wrong") as caught:
        list(map_shards(fail_at_three, range(9), workers))
    assert (caught.value.where, caught.value.fix) == ("here", "Use four.")


def test_one_task_needs_no_process() -> None:
    assert list(map_shards(where, [0], 4)) == [os.getpid()]
    assert os.getpid() not in list(map_shards(where, range(3), 2))


def test_a_killed_worker_is_an_infrastructure_error(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="worker process ended"):
        list(map_shards(killed, [tmp_path] * 2, 2))
