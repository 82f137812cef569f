"""Every way to end a run early; ten seconds later no process of it lives and the training lock is free."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from benchmarks.soak.ledger import Cell, Ledger
from benchmarks.soak.soaked_clone import RUN_SECONDS, SoakedClone, soak_in_a_clone

REPEATS = 5
# So long that no training ends by itself before it is ended.
ENDLESS_STEPS = 1_000_000
WAYS = ("ctrl-c", "sigterm", "sigkill of the command", "time limit", "cancel from prefect")


def one_ending(clone: SoakedClone, way: str, number: int) -> Cell:
    """Start a run, end it that way while it trains, and look for what is left.

    Raises:
        AssertionError: something lives on, or the lock is held.
    """
    clone.set_param("finetune.steps", ENDLESS_STEPS + number)
    clone.set_param("run.stage_timeout_minutes", 1 if way == "time limit" else 30)
    if way == "cancel from prefect":
        return _cancelled(clone)
    run = clone.start("retrain")
    process = clone.wait_for_stage("finetune", run)
    assert process is not None, f"no training began: {run.communicate()[0][-1500:]}"
    group = os.getpgid(process.pid)
    assert group != os.getpgid(run.pid), "a stage has no process group of its own"
    if way == "ctrl-c":
        os.killpg(run.pid, signal.SIGINT)
    elif way == "sigterm":
        run.send_signal(signal.SIGTERM)
    elif way == "sigkill of the command":
        run.send_signal(signal.SIGKILL)
    else:
        _wait_until_gone(clone, group)
    struck = time.monotonic()
    gone = clone.require_all_gone() if way != "time limit" else None
    said, _ = run.communicate(timeout=RUN_SECONDS)
    ended = round(time.monotonic() - struck, 2)
    assert _group_is_empty(group), "the stage's process group lives on"
    assert "Traceback" not in said, said[-1500:]
    if way == "time limit":
        gone = clone.require_all_gone()
        assert "took longer than 60 seconds" in said, said[-1500:]
    return {"gone_after": gone, "command_ended_after": ended, "code": run.returncode}


def _cancelled(clone: SoakedClone) -> Cell:
    serving = clone.start("serve", "--cron", "0 3 1 1 *")
    try:
        _prefect(clone, "deployment", "inspect", "retrain/scheduled", patience=120)
        started = _prefect(clone, "deployment", "run", "retrain/scheduled")
        found = re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}", started)
        assert found, started
        process = clone.wait_for_stage("finetune", serving)
        assert process is not None, "no training began"
        group = os.getpgid(process.pid)
        _prefect(clone, "flow-run", "cancel", found.group())
        asked = time.monotonic()
        _wait_until_gone(clone, group)
        gone = round(time.monotonic() - asked, 2)
        # Prefect frees the deployment's one slot with this state: the next run may come.
        _wait_until_cancelled(clone, found.group())
    finally:
        serving.send_signal(signal.SIGTERM)
        serving.communicate(timeout=120)
    clone.require_all_gone()
    return {"gone_after": gone}


def _wait_until_gone(clone: SoakedClone, group: int, seconds: float = 100.0) -> None:
    deadline = time.monotonic() + seconds
    while not _group_is_empty(group):
        assert time.monotonic() < deadline, f"the stage's process group lives on after {seconds:.0f} s"
        time.sleep(0.05)


def _wait_until_cancelled(clone: SoakedClone, flow_run: str, seconds: float = 100.0) -> None:
    deadline = time.monotonic() + seconds
    api = clone.environment()["PREFECT_API_URL"]
    while (state := httpx.get(f"{api}/flow_runs/{flow_run}", timeout=60).json()["state_type"]) != "CANCELLED":
        assert time.monotonic() < deadline, f"the cancelled run still reads {state} after {seconds:.0f} s"
        time.sleep(0.5)


def _group_is_empty(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def _prefect(clone: SoakedClone, *arguments: str, patience: float = 0.0) -> str:
    """The output of a prefect command, asked again until it succeeds or patience ends."""
    deadline = time.monotonic() + patience
    while True:
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *arguments],
            cwd=clone.folder,
            env={**clone.environment(), "PYTHONPATH": ""},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode == 0:
            return done.stdout
        assert time.monotonic() < deadline, done.stderr[-1500:]
        time.sleep(1.0)


def soak_endings(work: Path, repeats: int) -> Ledger:
    """End runs in every way so many times, but for what the results hold already."""
    cells = [(way, number) for number in range(repeats) for way in WAYS]
    return soak_in_a_clone("endings", work, cells, one_ending)
