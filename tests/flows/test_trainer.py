"""Separation of duties through the whole line: who trains publishes and cannot promote, who promotes can."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pipeline_clone import retrain, twinflow, write_params
from twinflow_core.local.seaweedfs import connection_as, seaweedfs_record
from twinflow_core.local.services import services_folder
from twinflow_core.registry.registry import Registry
from twinflow_core.registry.store import ObjectStore

pytestmark = pytest.mark.slow


@pytest.fixture
def env_of(service_root: Path, env: dict[str, str]) -> Callable[[str], dict[str, str]]:
    """The environment of a command that acts as one of the embedded server's identities."""
    folder = services_folder(service_root)
    running = seaweedfs_record(folder)
    assert running is not None
    return lambda role: {**env, **connection_as(folder, running, role).environment()}


def test_a_trainers_run_is_published_and_a_promoter_promotes_it(
    clone: Path, first: dict[str, Any], env_of: Callable[[str], dict[str, str]], object_store: ObjectStore
) -> None:
    before = (clone / "params.yaml").read_text()
    params = yaml.safe_load(before)
    # Another model: the version is one that nobody serves yet.
    params["registry"]["model"] = "trained-apart"
    registry = Registry(object_store, "trained-apart")
    write_params(clone, params)
    try:
        run = retrain(clone, env_of("trainer"))
        assert run["state"] == "published"
        assert "may not change the channel staging" in run["reason"]
        assert registry.history("staging") == []
        assert registry.verify(run["version"]) == []
        told = ["promote", run["version"][:12], "--to", "staging", "--reason", "reviewed", "--json"]
        refused = twinflow(clone, *told, env=env_of("trainer"))
        assert refused.returncode == 2
        assert "of an identity that may" in json.loads(refused.stdout)["error"]["fix"]
        done = twinflow(clone, *told, env=env_of("promoter"))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["version"] == run["version"]
        assert registry.head("staging").version == run["version"]
    finally:
        (clone / "params.yaml").write_text(before)
