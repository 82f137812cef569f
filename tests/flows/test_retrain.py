"""The whole line on real services: DVC, S3, Prefect, torch, ONNX Runtime; tiny numbers, one clone.

The tests run in their order and build on the session's first run (see conftest.py), as a user's day does.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from tests.pipeline_clone import outcomes, retrain, twinflow, write_params
from twinflow_core.registry.registry import Registry
from twinflow_core.registry.store import ObjectStore

pytestmark = pytest.mark.slow
STAGES = ["raw", "base", "prepare", "encode", "reference", "finetune", "evaluate", "export"]


@pytest.fixture
def edited_params(clone: Path) -> Iterator[dict[str, Any]]:
    """The clone's parameters, to be changed in place and written with `write_params`; put back at the end."""
    path = clone / "params.yaml"
    before = path.read_text()
    yield yaml.safe_load(before)
    path.write_text(before)


def test_a_first_run_is_promoted_and_recorded(
    clone: Path, first: dict[str, Any], object_store: ObjectStore
) -> None:
    assert first["state"] == "promoted", first["reason"]
    assert outcomes(first) == dict.fromkeys(STAGES, "ran")
    assert {rule["status"] for rule in first["gates"]} == {"PASS"}
    assert Path(first["report"]).stat().st_size > 10_000
    assert Image.open(first["grid"]).size[0] > 64
    names = {info.key.split("/")[-1] for info in object_store.list(f"runs/{first['id']}/")}
    assert names == {
        "record.json", "dvc.lock", "params.yaml", "code.bundle", "environment.json", "speed.json",
        "report.html", "grid.png", "log.txt",
    }  # fmt: skip
    # The user's checkout is as it was, but for the branch that keeps the run.
    status = subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True)
    assert status.stdout.split() == ["??", "tiny_base/"]
    branches = subprocess.run(["git", "branch"], cwd=clone, capture_output=True, text=True).stdout
    assert f"runs/{first['id']}" in branches
    assert not (clone / ".twinflow/runs" / first["id"] / "tree").exists()


def test_a_second_run_has_nothing_to_do_within_seconds(
    clone: Path, first: dict[str, Any], env: dict[str, str]
) -> None:
    start = time.monotonic()
    done = twinflow(clone, "retrain", env=env)
    assert done.returncode == 0
    assert "Nothing to do" in done.stdout
    assert first["id"] in done.stdout
    assert time.monotonic() - start < 20


def test_what_was_promoted_draws_the_same_image_twice(
    clone: Path, first: dict[str, Any], env: dict[str, str], tmp_path: Path
) -> None:
    made = []
    for name in ("a.png", "b.png"):
        out = tmp_path / name
        done = twinflow(
            clone, "generate", "a red circle", "--out", str(out), "--seed", "3", "--json", env=env
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["version"] == first["version"]
        made.append(out.read_bytes())
    assert made[0] == made[1]
    assert Image.open(tmp_path / "a.png").size == (32, 32)


def test_runs_show_history_report(clone: Path, first: dict[str, Any], env: dict[str, str]) -> None:
    listed = json.loads(twinflow(clone, "runs", "--json", env=env).stdout)
    assert first["id"] in [run["id"] for run in listed]
    shown = twinflow(clone, "show", first["id"][-4:], env=env)
    assert "promoted" in shown.stdout
    history = json.loads(twinflow(clone, "history", "--json", env=env).stdout)
    assert history["staging"][-1]["version"] == first["version"]
    assert twinflow(clone, "report", first["id"], env=env).stdout.strip().endswith("report.html")


def test_a_changed_gate_judges_again_without_retraining(
    clone: Path, first: dict[str, Any], env: dict[str, str], edited_params: dict[str, Any]
) -> None:
    for rule in edited_params["gates"]["quality"]["distribution"]:
        if "min" in rule:
            rule["min"] = 5.0
    write_params(clone, edited_params)
    run = retrain(clone, env, code=1)
    assert run["state"] == "rejected"
    assert set(outcomes(run).values()) == {"unchanged"}
    assert [rule["status"] for rule in run["gates"]] == ["FAIL", "FAIL", "PASS"]
    assert json.loads(twinflow(clone, "history", "--json", env=env).stdout)["staging"][-1]["generation"] == 1


def test_production_is_promoted_by_a_person_and_rolled_back(
    clone: Path, first: dict[str, Any], env: dict[str, str]
) -> None:
    told = ["--reason", "looks right", "--actor", "ada", "--json"]
    done = twinflow(clone, "promote", *told, env=env)
    assert done.returncode == 0, done.stderr
    entry = json.loads(done.stdout)
    assert (entry["version"], entry["actor"], entry["reason"]) == (first["version"], "ada", "looks right")
    back = twinflow(clone, "rollback", "--reason", "why not", env=env)
    assert back.returncode == 2
    assert "nothing to go back to" in back.stderr


def test_a_dry_run_judges_and_records_and_moves_nothing(
    clone: Path,
    first: dict[str, Any],
    env: dict[str, str],
    edited_params: dict[str, Any],
    object_store: ObjectStore,
) -> None:
    registry = Registry(object_store, "tiny")
    before = registry.history("staging")
    edited_params["gates"]["mode"] = "dry-run"
    write_params(clone, edited_params)
    run = retrain(clone, env)
    assert (run["state"], run["decision"]) == ("published", "promote")
    assert registry.decision(run["decision_id"])["mode"] == "dry-run"
    assert registry.history("staging") == before
