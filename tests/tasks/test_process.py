"""Real child processes: output, masking, exit codes, and that nothing outlives its run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.process import MASK, run_logged
from twinflow_core.errors import ExitCode, InfrastructureError
from twinflow_core.progress import Step

ROOT = Path(__file__).resolve().parents[2]
GRANDCHILD = "sh -c 'sleep 300 & echo $! > {file}; wait'"


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(condition, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_lines_progress_and_code(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "print('plain'); print('bar 1\\rbar 2\\rbar 3')\n"
        'print(\'@progress {"label": "train", "done": 3, "total": 9, "note": "loss 1"}\', file=sys.stderr)\n'
        "print('the key is hunter2hunter2'); print('no newline', end=''); sys.exit(7)\n"
    )
    lines: list[str] = []
    steps: list[Step] = []
    env = {**os.environ, "AWS_SECRET_ACCESS_KEY": "hunter2hunter2"}
    log = tmp_path / "logs" / "x.log"
    finished = run_logged(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=env,
        log=log,
        on_line=lines.append,
        on_progress=steps.append,
    )
    assert finished.code == 7
    assert lines == ["plain", "bar 1", "bar 2", "bar 3", f"the key is {MASK}", "no newline"]
    assert list(finished.tail) == lines == log.read_text().splitlines()
    assert steps == [Step("train", 3, 9, "loss 1")]


def test_a_signal_is_told_as_code(tmp_path: Path) -> None:
    finished = run_logged(["sh", "-c", "kill -9 $$"], cwd=tmp_path, env=os.environ, log=tmp_path / "log")
    assert finished.code == 128 + signal.SIGKILL


def test_timeout_ends_the_whole_group(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    start = time.monotonic()
    with pytest.raises(InfrastructureError, match="longer than") as caught:
        run_logged(
            ["sh", "-c", GRANDCHILD.format(file=pid_file)],
            cwd=tmp_path,
            env=os.environ,
            log=tmp_path / "log",
            timeout_seconds=1.0,
        )
    assert caught.value.code == ExitCode.INFRASTRUCTURE
    assert time.monotonic() - start < 8
    assert not alive(int(pid_file.read_text()))


def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = (
        f"import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(300)"
    )
    start = time.monotonic()
    with pytest.raises(InfrastructureError):
        run_logged(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env=os.environ,
            log=tmp_path / "log",
            timeout_seconds=1.5,
        )
    # As every run promises: ten seconds after its end was called for, nothing lives.
    assert time.monotonic() - start < 1.5 + 10
    assert not alive(int(pid_file.read_text()))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_nothing_outlives_the_starter(tmp_path: Path, how: signal.Signals) -> None:
    pid_file = tmp_path / "pid"
    starter = (
        # A shell that runs the tests in the background has them ignore Ctrl-C, and their children too.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import os; from pathlib import Path; from tasks.process import run_logged\n"
        f"run_logged(['sh', '-c', {GRANDCHILD.format(file=pid_file)!r}], cwd=Path('/'), env=os.environ,"
        f" log=Path({str(tmp_path / 'log')!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", starter], cwd=ROOT, stderr=subprocess.DEVNULL)
    assert wait_until(lambda: pid_file.exists() and pid_file.read_text().strip() != "")
    grandchild = int(pid_file.read_text())
    assert alive(grandchild)
    process.send_signal(how)
    process.wait(timeout=30)
    assert wait_until(lambda: not alive(grandchild))


def test_a_command_that_leaves_a_child_behind_still_ends(tmp_path: Path) -> None:
    start = time.monotonic()
    finished = run_logged(
        ["sh", "-c", "sleep 300 & exit 4"], cwd=tmp_path, env=os.environ, log=tmp_path / "log"
    )
    assert finished.code == 4
    assert time.monotonic() - start < 5
