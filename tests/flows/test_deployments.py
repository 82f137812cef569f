"""The flow on a schedule: `twinflow serve`, and the same deployments in prefect.yaml for a worker."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.pipeline_clone import REPOSITORY, TWINFLOW
from twinflow_core.local.services import Services

pytestmark = pytest.mark.slow


def test_a_worker_pool_takes_the_deployments(services: Services, tmp_path: Path) -> None:
    env = {**os.environ, **services.environment(), "TWINFLOW_ROOT": str(REPOSITORY)}

    def prefect(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [TWINFLOW.with_name("prefect"), "--no-prompt", *arguments]
        return subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True)

    assert prefect("work-pool", "create", "twinflow", "--type", "process", "--overwrite").returncode == 0
    by_hand = [f"{flow}/worker-by-hand" for flow in ("approve", "promote", "rollback")]
    for name in ("retrain/worker-scheduled", *by_hand):
        # The exit code is no help: see the note in prefect.yaml.
        assert "successfully created" in " ".join(prefect("deploy", "--name", name).stdout.split())
    scheduled = prefect("deployment", "inspect", "retrain/worker-scheduled").stdout
    assert "0 3 * * *" in scheduled
    assert "CANCEL_NEW" in scheduled
    assert "flows/retrain.py:retrain" in scheduled
    for name in by_hand:
        assert "flows/promote.py" in prefect("deployment", "inspect", name).stdout
    # The form is the approval: a candidate and a reason that must be given, and one of two answers.
    form = json.loads(prefect("deployment", "inspect", by_hand[0], "--output", "json").stdout)
    schema = form["parameter_openapi_schema"]
    assert schema["required"] == ["candidate", "reason"]
    assert schema["properties"]["answer"]["enum"] == ["approve", "reject"]


def test_a_served_schedule_starts_runs_by_itself(
    clone: Path, first: dict[str, Any], env: dict[str, str]
) -> None:
    serving = subprocess.Popen(
        [str(TWINFLOW), "serve", "--cron", "* * * * *"],
        cwd=clone,
        env={**os.environ, **env, "PYTHONPATH": str(clone)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    prefect = [str(TWINFLOW.with_name("prefect")), "deployment"]
    try:
        deployment = wait_for(lambda: call([*prefect, "inspect", "retrain/scheduled"], clone, env), 120)
        assert "CANCEL_NEW" in deployment
        assert "* * * * *" in deployment
        assert wait_for(lambda: finished_by_schedule(env["PREFECT_API_URL"]), 240) == "Nothing to do"
    finally:
        serving.terminate()
        serving.wait(timeout=60)
    # The schedule outlives the process that served it.
    assert "'paused': False" in call([*prefect, "inspect", "retrain/scheduled"], clone, env)
    call([*prefect, "delete", "retrain/scheduled"], clone, env)


def finished_by_schedule(api: str) -> str:
    """The state of the first finished run that a schedule started; empty if there is none."""
    finished = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}, "sort": "START_TIME_ASC"}
    runs = httpx.post(f"{api}/flow_runs/filter", json=finished, timeout=60).json()
    told = [run["state"]["name"] for run in runs if (run["created_by"] or {}).get("type") == "SCHEDULE"]
    return told[0] if told else ""


def call(command: list[str], clone: Path, env: dict[str, str]) -> str:
    """The output of a command, empty if it failed."""
    done = subprocess.run(
        command, cwd=clone, env={**os.environ, **env}, capture_output=True, text=True, timeout=180
    )
    return done.stdout if done.returncode == 0 else ""


def wait_for(attempt: Callable[[], str], seconds: float) -> str:
    """The first answer that is not empty."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := attempt():
            return answer
        time.sleep(0.5)
    raise AssertionError("no answer in time")
