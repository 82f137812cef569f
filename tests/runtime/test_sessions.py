"""Threads of a session leave the cores to others as soon as a run is done."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from twinflow_core.runtime.package import TEXT_GRAPH
from twinflow_core.runtime.providers import CPU
from twinflow_core.runtime.sessions import GraphSession

pytestmark = pytest.mark.slow


def test_no_thread_spins_between_two_runs(tiny_package: Path) -> None:
    session = GraphSession(tiny_package / TEXT_GRAPH, CPU, threads=4)
    ids = np.ones((16, 12), np.int64)
    for _ in range(3):
        session.run({"input_ids": ids, "input_ids_2": ids})
        before = time.process_time()
        time.sleep(0.3)
        # Threads that spin count for 0.3 s each, or for what the cores give.
        assert time.process_time() - before < 0.05
