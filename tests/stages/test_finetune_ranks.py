"""The finetune stage on two processes: one that is killed ends all, is said once, and the next run goes on."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.training.ranks_tree import REPOSITORY, build_tree, set_options
from twinflow_core.errors import ExitCode
from twinflow_core.params import load_params
from twinflow_core.progress import read_progress
from twinflow_core.stages.entry import ERROR_FILE_VARIABLE
from twinflow_core.stages.finetune import finetune
from twinflow_core.training.sharded_checkpoint import RECORD

pytestmark = pytest.mark.slow

STEPS = 6


def start(root: Path) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), ERROR_FILE_VARIABLE: str(root / "error.json")}
    return subprocess.Popen(
        [sys.executable, "-m", "twinflow_core.stages.finetune"],
        cwd=root, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def ranks_of(stage: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(stage.pid).children()
    return [child for child in children if any("spawn_main" in word for word in child.cmdline())]


def finished_steps(root: Path) -> int:
    records = list(root.glob(f".twinflow/training/*/{RECORD}"))
    return json.loads(records[0].read_text())["step"] if records else 0


def group(stage: subprocess.Popen[str]) -> list[psutil.Process]:
    """What still runs in the stage's process group."""
    return [process for process in psutil.process_iter() if is_in(process, stage.pid)]


def is_in(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


def test_a_killed_rank_ends_the_run_with_one_message_and_the_next_run_goes_on(
    tiny_pipeline: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = build_tree(tmp_path, tiny_pipeline, steps=STEPS, checkpoint_every=1, launch={"processes": 2})
    stage = start(root)
    while finished_steps(root) < 2 and stage.poll() is None:
        time.sleep(0.01)
    ranks = ranks_of(stage)
    assert len(ranks) == 2
    # Whoever ends the group of the stage ends them.
    assert all(is_in(rank, stage.pid) for rank in ranks)
    ranks[1].send_signal(signal.SIGKILL)
    said, _ = stage.communicate(timeout=60)
    assert stage.returncode == ExitCode.INFRASTRUCTURE
    message = json.loads((root / "error.json").read_text())
    assert "process 1 of 2 was killed (SIGKILL)" in message["what"]
    assert said.count("Training stopped") == 1
    assert "Traceback" not in said
    deadline = time.monotonic() + 5
    while group(stage) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert group(stage) == []
    before = finished_steps(root)
    assert 2 <= before < STEPS
    # The next run may have another number of processes.
    set_options(root, steps=STEPS, checkpoint_every=1)
    capfd.readouterr()
    finetune(load_params(root / "params.yaml"), root)
    lines = capfd.readouterr().err.splitlines()
    done = [step.done for line in lines if (step := read_progress(line))]
    assert done[0] == before
    assert done[-1] == STEPS
    with (root / "models/candidate/training_log.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(1, STEPS + 1))
