from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from twinflow_core.local.daemon import MARK, Daemon, is_alive, start_daemon, stop_daemon

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
# Prints when its child runs, so that the test need not guess how long that takes.
PARENT_AND_CHILD = (
    "import subprocess, sys, signal, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    "print('ready', flush=True)\n"
    "time.sleep(60)\n"
)


def _start(folder: Path, command: list[str]) -> Daemon:
    return start_daemon(command, folder, os.environ, folder / "log")


def test_it_runs_in_its_own_session_until_it_is_stopped(tmp_path: Path) -> None:
    daemon = _start(tmp_path, SLEEP)
    assert is_alive(daemon)
    assert os.getsid(daemon.pid) == daemon.pid
    assert stop_daemon(daemon, tmp_path, grace_seconds=10)
    assert not is_alive(daemon)
    assert not stop_daemon(daemon, tmp_path, grace_seconds=10)


def test_children_and_the_deaf_are_ended_too(tmp_path: Path) -> None:
    daemon = _start(tmp_path, [sys.executable, "-c", PARENT_AND_CHILD])
    while b"ready" not in (tmp_path / "log").read_bytes():
        time.sleep(0.02)
    (child,) = psutil.Process(daemon.pid).children()
    assert stop_daemon(daemon, tmp_path, grace_seconds=0.5)
    assert not is_alive(daemon)
    # Nobody may have reaped the orphan yet.
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_process_whose_record_is_lost_is_found_by_its_mark(tmp_path: Path) -> None:
    daemon = _start(tmp_path, SLEEP)
    assert stop_daemon(None, tmp_path, grace_seconds=10)
    assert not is_alive(daemon)


def test_a_stranger_with_the_recorded_pid_is_left_alone(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    with subprocess.Popen(SLEEP, env=environment) as stranger:
        recorded = Daemon(stranger.pid, psutil.Process(stranger.pid).create_time(), str(tmp_path))
        assert not is_alive(recorded)
        assert not stop_daemon(recorded, tmp_path, grace_seconds=1)
        assert stranger.poll() is None
        stranger.kill()


def test_the_log_of_the_start_before_is_kept(tmp_path: Path) -> None:
    for word in ("first", "second"):
        daemon = _start(tmp_path, [sys.executable, "-c", f"print({word!r})"])
        psutil.wait_procs([psutil.Process(daemon.pid)], timeout=30)
    assert (tmp_path / "log").read_text() == "second\n"
    assert (tmp_path / "log.previous").read_text() == "first\n"


def test_a_command_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        _start(tmp_path, ["/no/such/program"])
