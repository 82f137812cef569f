"""A training killed with SIGKILL at a random moment resumes to the bytes of one that was not."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.test_loop import STEPS, train, weights
from twinflow_core.training.checkpoint import load_state

OPTIONS = STEPS.model_copy(update={"steps": 200, "checkpoint_every": 1, "batch_size": 2, "log_every": 50})
CHILD = """
import sys
from pathlib import Path
from tests.training.test_killed import OPTIONS
from tests.training.test_loop import train
train(Path(sys.argv[1]), OPTIONS, Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_sigkill_and_resume_give_the_same_bytes(tiny_pipeline: Path, tmp_path: Path) -> None:
    state = tmp_path / "killed"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tiny_pipeline), str(state)], stderr=subprocess.DEVNULL
    )
    at = random.randrange(1, 12)
    while child.poll() is None and finished(state) < at:
        time.sleep(random.uniform(0.001, 0.05))
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert child.returncode == -signal.SIGKILL
    steps = finished(state)
    assert at <= steps < OPTIONS.steps - 10
    short = OPTIONS.model_copy(update={"steps": steps + 5, "log_every": 1})
    resumed = train(tiny_pipeline, short, state)
    whole = train(tiny_pipeline, short, tmp_path / "whole")
    assert weights(resumed).equal(weights(whole))
    assert [row["loss"] for row in resumed.log[-5:]] == [row["loss"] for row in whole.log[-5:]]


def finished(state: Path) -> int:
    saved = load_state(state, "k")
    return saved[0] if saved else 0
