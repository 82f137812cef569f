"""However the processes of a launch end, none is left, and one message says why."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.training.ranks_that_end import one_fails, one_is_told_no
from twinflow_core.errors import InfrastructureError, TwinflowError
from twinflow_core.finetune_params import LaunchParams
from twinflow_core.training.launch import launch

TWO = LaunchParams(processes=2)


def pids(folder: Path) -> list[int]:
    texts = [path.read_text() for path in sorted(folder.glob("pid-*"))]
    return [int(text) for text in texts if text]


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.slow
def test_what_a_process_tells_the_user_is_told_and_the_others_end(tmp_path: Path) -> None:
    with pytest.raises(TwinflowError) as caught:
        launch(one_is_told_no, (tmp_path,), TWO, "no", tmp_path / "state")
    assert caught.value.as_dict() == {
        "what": "Rank one says no.",
        "where": "here",
        "fix": "Say please.",
        "code": 2,
    }
    assert not any(map(alive, pids(tmp_path)))


@pytest.mark.slow
def test_a_fault_is_named_and_what_the_process_printed_is_kept(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match=r"process 1 of 2 failed: ValueError: of a fault") as caught:
        launch(one_fails, (tmp_path,), TWO, "fault", tmp_path / "state")
    printed = [path.read_text() for path in Path(caught.value.where).rglob("stdout.log")]
    assert printed == ["what rank one printed\n"]


@pytest.mark.slow
def test_a_launcher_that_is_told_to_end_ends_its_processes(tmp_path: Path) -> None:
    launcher = subprocess.Popen([sys.executable, "-m", "tests.training.ranks_that_end", str(tmp_path)])
    while len(pids(tmp_path)) < 2 and launcher.poll() is None:
        time.sleep(0.02)
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(timeout=30) == -signal.SIGTERM
    assert not any(map(alive, pids(tmp_path)))


def test_nodes_that_are_not_told_where_to_meet_say_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(TwinflowError, match="not told where they meet") as caught:
        launch(one_fails, (tmp_path,), LaunchParams(nodes=2), "nowhere", tmp_path)
    assert "PET_NODE_RANK" in caught.value.where
