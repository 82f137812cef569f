"""prefect.yaml gives a worker the deployments that `twinflow serve` holds itself."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.pipeline_clone import REPOSITORY, TWINFLOW
from twinflow_core.local.services import Services

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("pipeline")]


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
