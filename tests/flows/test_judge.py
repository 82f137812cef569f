"""A candidate judged once more, as a CI job does it: exit code, record, and nothing moved."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.dvc import share_cache
from tests.conftest import BUCKET
from tests.pipeline_clone import TWINFLOW, twinflow, write_params
from twinflow_core.registry.registry import Registry
from twinflow_core.registry.store import ObjectStore

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checked_out(
    clone: Path, first: dict[str, Any], env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Another clone, at the run's commit, with what the run made out of the cache: a CI job's working folder."""
    tree = tmp_path_factory.mktemp("ci") / "pipeline"
    command = ["git", "clone", "-q", "-b", f"runs/{first['id']}", str(clone), str(tree)]
    subprocess.run(command, check=True)
    share_cache(clone, tree, BUCKET)
    # The base's own folder is no part of git; `evaluate` and `export` do not read it.
    subprocess.run(
        [str(TWINFLOW.with_name("dvc")), "checkout", "--quiet", "--allow-missing"],
        cwd=tree,
        env={**os.environ, **env},
        check=True,
    )
    return tree


@pytest.fixture
def tiny(object_store: ObjectStore) -> Iterator[Registry]:
    """The registry of the tiny model; whatever a test judges, its channels stay as they are."""
    registry = Registry(object_store, "tiny")
    before = registry.history("staging"), registry.history("production")
    yield registry
    assert (registry.history("staging"), registry.history("production")) == before


def judge(tree: Path, env: dict[str, str], *arguments: str, code: int) -> dict[str, Any]:
    done = twinflow(tree, "judge", *arguments, "--json", env=env)
    assert done.returncode == code, done.stderr[-3000:]
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_a_clones_own_evaluation_passes_both_gates(
    checked_out: Path, first: dict[str, Any], env: dict[str, str], tiny: Registry
) -> None:
    told = judge(checked_out, env, "--reason", "pull request 7", code=0)
    assert told["outcome"] == "promote"
    quality, serving = told["decisions"]
    stored = tiny.decision(told["decision"])
    assert {**stored, "id": ""} == serving
    assert (quality["gate"], serving["gate"]) == ("quality", "serving")
    assert serving["builds_on"] == quality["digest"]
    assert stored["why"] == "pull request 7"
    assert stored["candidate"] is None
    assert (stored["champion"], stored["generation"]) == (first["version"], 1)
    assert quality["digest"] in [tiny.decision(each)["digest"] for each in tiny.decisions()]


def test_a_missed_rule_exits_with_one_and_a_dry_run_says_so(
    checked_out: Path, env: dict[str, str], tiny: Registry
) -> None:
    params = yaml.safe_load((checked_out / "params.yaml").read_text())
    params["gates"]["mode"] = "dry-run"
    params["gates"]["quality"]["distribution"][0]["min"] = 5.0
    write_params(checked_out, params)
    told = judge(checked_out, env, code=1)
    assert [each["gate"] for each in told["decisions"]] == ["quality"]
    stored = tiny.decision(told["decision"])
    assert (stored["outcome"], stored["mode"]) == ("reject", "dry-run")
    assert stored["rules"][0]["min"] == 5.0


def test_an_evaluation_that_was_touched_is_no_evaluation(
    checked_out: Path, env: dict[str, str], tiny: Registry
) -> None:
    metrics = checked_out / "eval/candidate/metrics.json"
    before = metrics.read_text()
    metrics.unlink()
    metrics.write_text(before.replace("0.", "0.9", 1))
    error = judge(checked_out, env, code=2)["error"]
    assert "dvc repro evaluate" in error["fix"]


def test_a_published_version_is_judged_in_any_clone(
    clone: Path, first: dict[str, Any], env: dict[str, str], tiny: Registry
) -> None:
    told = judge(clone, env, first["version"][:12], "--against", first["version"][:10], code=0)
    stored = tiny.decision(told["decision"])
    assert (stored["candidate"], stored["run"]) == (first["version"], first["id"])
    assert (stored["mode"], stored["outcome"]) == ("enforce", "promote")
    assert list((clone / ".twinflow/judge").iterdir()) == []
    wrong = judge(clone, env, "nothing-like-it", code=2)["error"]
    assert "Nothing fits" in wrong["what"]
