"""The verbs of people and programs, on the real bucket, in a clone without a run of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tasks.promote import promote_judged
from tests.pipeline_clone import REPOSITORY, twinflow
from twinflow_core.cli.app import app
from twinflow_core.errors import TwinflowError
from twinflow_core.local.services import Services, open_registry
from twinflow_core.registry.channel import Entry
from twinflow_core.registry.permission import ApprovalMissing, RejectedByPerson
from twinflow_core.registry.registry import ChannelHeld, Registry
from twinflow_core.registry.s3 import S3Connection
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


@pytest.fixture
def say(clone: Path, s3_connection: S3Connection, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The command in this process: gives the document of `twinflow <arguments> --json`."""
    for name, value in {**s3_connection.environment(), "TWINFLOW_ACTOR": "grace"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(clone)

    def call(*arguments: str, code: int = 0) -> Any:
        done = CliRunner().invoke(app, [*arguments, "--json"])
        assert done.exit_code == code, (arguments, done.output, done.exception)
        return json.loads(done.stdout)

    return call


def test_what_differs_between_two_versions(versions: list[str], say: Callable[..., Any]) -> None:
    difference = say("compare", versions[0][:12], "staging")
    assert difference["a"]["version"] == versions[0]
    assert difference["b"]["version"] == versions[1]
    assert difference["metrics"] == [{"path": "score", "a": 0.5, "b": 0.75, "change": 0.25}]
    assert [(each["path"], each["change"]) for each in difference["params"]] == [("finetune.steps", 1.0)]
    assert [each["path"] for each in difference["lineage"] + difference["files"]] == ["data", "model.onnx"]
    assert say("compare", "staging", versions[1])["params"] == []


def test_answers_and_holds_steer_a_promotion(
    clone: Path, versions: list[str], say: Callable[..., Any]
) -> None:
    registry, new = open_registry(clone), versions[1]

    def promote(reason: str = "") -> Entry:
        return promote_judged.fn(registry, "production", new, "grace", reason)

    with pytest.raises(ApprovalMissing) as refused:
        promote()
    assert f"twinflow approve {new[:12]} --channel production" in refused.value.fix
    assert say("reject", "--reason", "too red")["candidate"] == new
    with pytest.raises(RejectedByPerson, match="grace rejected"):
        promote("now")
    assert say("approve", new[:12], "--reason", "not at all")["number"] == 2
    assert say("hold", "--reason", "incident")["held"] is True
    with pytest.raises(ChannelHeld) as held:
        promote()
    assert "twinflow release --channel production" in held.value.fix
    assert say("release", "--reason", "over")["held"] is False
    entry = promote()
    assert (entry.version, entry.approval, entry.reason) == (new, 2, "grace approved it: not at all")
    with pytest.raises(TwinflowError, match="already"):
        promote()


def test_the_past_and_the_health_of_a_registry(
    clone: Path, versions: list[str], say: Callable[..., Any]
) -> None:
    served = say("at", f"{datetime.now(UTC):%Y-%m-%d}")
    assert [span["version"] for span in served["staging"]] == versions
    assert served["staging"][-1]["until"] is None
    collected = say("gc", "--dry-run")
    assert (collected["dry_run"], collected["kept"]) == (True, sorted(versions))
    sound = say("verify")
    assert (sound["problems"], sound["versions"], sound["channels"]) == ([], 2, 1)
    registry = open_registry(clone)
    blob = next(iter(registry.store.list(f"{registry.prefix}/blobs/"))).key
    registry.store.put(blob, b"?")
    (problem,) = say("verify", code=3)["problems"]
    assert blob in problem


def refusal(*arguments: str) -> TwinflowError:
    """What `main` tells of a command that is refused."""
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, TwinflowError)
    return error


@pytest.mark.usefixtures("say")
def test_a_slip_in_a_name_is_told_and_makes_no_channel(clone: Path, versions: list[str]) -> None:
    for verb in (
        ["hold", "--channel", "prodution", "--reason", "incident"],
        ["approve", versions[1], "--channel", "prodution", "--reason", "fine"],
        ["history", "--channel", "prodution"],
        ["at", "2026-01-31", "--channel", "prodution"],
    ):
        error = refusal(*verb)
        assert (error.what, "`production`" in error.fix) == ("There is no channel `prodution`.", True)
    assert open_registry(clone).channels() == ["staging"]
    assert "no channel, no version and no run" in refusal("compare", "staging", "nope").what
    assert "serves nothing yet" in refusal("compare", "staging", "production").what
    assert "--reason" in refusal("hold", "--reason", " ").fix


def test_a_channel_that_the_parameters_no_longer_name_keeps_its_past(
    clone: Path, versions: list[str], say: Callable[..., Any]
) -> None:
    model = open_registry(clone).model
    Registry(open_registry(clone).store, model).hold("canary", **WHO)
    assert say("history", "--channel", "canary")["canary"][0]["action"] == "hold"
    assert say("release", "--channel", "canary", "--reason", "over")["held"] is False


def test_people_are_told_what_they_may_do_next(
    clone: Path, versions: list[str], say: Callable[..., Any]
) -> None:
    told = CliRunner().invoke(app, ["reject", "--channel", "staging", "--reason", "too red"]).stdout
    assert "staging serves it still: twinflow rollback --channel staging" in told
    told = CliRunner().invoke(app, ["compare", "staging", "staging"]).stdout.splitlines()
    assert told[2:] == ["metrics: the same", "params: the same", "lineage: the same", "files: the same"]


def test_an_approved_version_goes_to_production_by_command(
    clone: Path, versions: list[str], services: Services
) -> None:
    env = {**services.environment(), "PYTHONPATH": str(REPOSITORY)}
    done = twinflow(clone, "promote", "--json", env=env)
    assert done.returncode == 1
    assert "registry.approval asks for a person's approval" in json.loads(done.stdout)["error"]["what"]
    answer = f"from flows.promote import approve; approve({versions[1]!r}, 'looks right', who='grace')"
    command = [sys.executable, "-c", answer]
    subprocess.run(command, cwd=clone, env={**os.environ, **env}, check=True, capture_output=True)
    done = twinflow(clone, "promote", "--actor", "ada", "--json", env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    entry = json.loads(done.stdout)
    assert (entry["version"], entry["actor"], entry["approval"]) == (versions[1], "ada", 1)
