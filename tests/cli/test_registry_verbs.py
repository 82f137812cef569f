"""The verbs of people and programs, on the real bucket, in a clone without a run of its own."""

from __future__ import annotations

import json
import shutil
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pipeline_clone import REPOSITORY, twinflow
from twinflow_core.local.services import Services
from twinflow_core.registry.registry import Registry
from twinflow_core.registry.store import ObjectStore
from twinflow_core.run_record import run_key

pytestmark = pytest.mark.slow
WHO = {"actor": "ada", "reason": "because"}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """As much of a clone as these verbs need, with a model of its own and approval asked for on production."""
    params = yaml.safe_load((REPOSITORY / "tests/params.tiny.yaml").read_text())
    params["registry"].update(model=f"model-{uuid.uuid4().hex[:12]}", approval=["production"])
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    shutil.copy(REPOSITORY / "dvc.yaml", tmp_path)
    for name in ("flows", "tasks"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def versions(clone: Path, object_store: ObjectStore) -> list[str]:
    """Two versions of two runs; staging served the first, and serves the second."""
    model = yaml.safe_load((clone / "params.yaml").read_text())["registry"]["model"]
    registry = Registry(object_store, model)
    found = []
    for number, score in enumerate((0.5, 0.75)):
        run = f"20260101-00000{number}-{uuid.uuid4().hex[:4]}"
        object_store.put(run_key(run, "params.yaml"), f"finetune: {{steps: {100 + number}}}".encode())
        package = clone / "package"
        package.mkdir(exist_ok=True)
        (package / "model.onnx").write_text(str(number))
        version = registry.publish(package, {"data": f"data {number}"}, {"score": score})
        told = {"candidate": version, "channel": "staging", "generation": number, "outcome": "promote"}
        decision = registry.record_decision({**told, "run": run})
        registry.promote("staging", version, decision, number, **WHO)
        found.append(version)
    return found


def test_a_day_of_a_registry(clone: Path, versions: list[str], services: Services) -> None:
    env = {**services.environment(), "PYTHONPATH": str(REPOSITORY), "TWINFLOW_ACTOR": "grace"}
    old, new = versions

    def say(*arguments: str, code: int = 0) -> Any:
        done = twinflow(clone, *arguments, "--json", env=env)
        assert done.returncode == code, (arguments, done.stderr[-2000:])
        return json.loads(done.stdout)

    difference = say("compare", old[:12], "staging")
    assert difference["a"]["version"] == old
    assert difference["metrics"] == [{"path": "score", "a": 0.5, "b": 0.75, "change": 0.25}]
    assert [(each["path"], each["change"]) for each in difference["params"]] == [("finetune.steps", 1.0)]
    assert [each["path"] for each in difference["lineage"] + difference["files"]] == ["data", "model.onnx"]

    refused = say("promote", code=2)["error"]
    assert f"twinflow approve {new[:12]} --channel production" in refused["fix"]
    say("reject", "--reason", "too red")
    assert "grace rejected" in say("promote", "--reason", "now", code=2)["error"]["what"]
    assert say("approve", "--reason", "not at all")["number"] == 2
    say("hold", "--reason", "incident")
    assert "twinflow release --channel production" in say("promote", code=2)["error"]["fix"]
    assert say("release", "--reason", "over")["held"] is False
    entry = say("promote")
    assert (entry["version"], entry["approval"], entry["actor"]) == (new, 2, "grace")
    assert entry["reason"] == "grace approved it: not at all"
    assert "serves" in say("promote", code=2)["error"]["what"]

    served = say("at", f"{datetime.now(UTC):%Y-%m-%d}")
    assert [span["version"] for span in served["staging"]] == versions
    assert [span["until"] for span in served["production"]] == [None]
    collected = say("gc", "--dry-run")
    assert (collected["dry_run"], sorted(collected["kept"])) == (True, sorted(versions))
    sound = say("verify")
    assert (sound["problems"], sound["versions"], sound["channels"]) == ([], 2, 2)


def test_verify_tells_people_and_the_shell_of_damage(
    clone: Path, versions: list[str], services: Services, object_store: ObjectStore
) -> None:
    model = yaml.safe_load((clone / "params.yaml").read_text())["registry"]["model"]
    blob = next(iter(object_store.list(f"registry/{model}/blobs/"))).key
    object_store.put(blob, b"?")
    env = {**services.environment(), "PYTHONPATH": str(REPOSITORY)}
    done = twinflow(clone, "verify", env=env)
    assert done.returncode == 3
    assert "1 problem(s)" in done.stdout
    assert blob in done.stdout
