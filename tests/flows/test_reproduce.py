"""A run computed again: by DVC alone, in another clone, and when two computations count as the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.reproduce import changed_rules
from tests.pipeline_clone import TWINFLOW, make_clone, twinflow
from twinflow_core.registry.store import ObjectStore
from twinflow_core.run_record import run_key

METRICS = {"candidate": {"nfe1": {"score": 0.82}}, "ratio": {"score_nfe1": 0.91}}


def rule(**fields: Any) -> dict[str, Any]:
    metric = {"id": "score", "metric": "candidate.nfe1.score", "kind": "min", "value": 0.8, "bound": 0.5}
    return {**metric, "low": None, "high": None, **fields}


@pytest.mark.parametrize(
    ("recorded", "same"),
    [
        (rule(), True),
        (rule(low=0.75, high=0.85), True),
        (rule(low=0.75, high=0.81), False),
        (rule(bound=0.81), False),
        (rule(kind="max", bound=0.81), False),
        (rule(kind="max", bound=0.9), True),
        (rule(metric="candidate.nfe2.score"), False),
        (rule(metric="serving.p95_ms", bound=1000), True),
        (rule(kind="margin", bound=-0.03), True),
        (rule(value=None), True),
        (rule(bound=0.81, slices=[{"name": "counting"}]), True),
        (rule(low=0.79, high=0.81, look=2), True),
    ],
)
def test_a_rule_comes_out_as_recorded_or_is_named(recorded: dict[str, Any], same: bool) -> None:
    assert (changed_rules([recorded], METRICS) == {}) == same


@pytest.mark.slow
def test_dvc_alone_gives_the_lock_of_a_run(
    clone: Path, first: dict[str, Any], tmp_path: Path, env: dict[str, str]
) -> None:
    tree = tmp_path / "plain"
    branch = f"runs/{first['id']}"
    subprocess.run(["git", "clone", "-q", "-b", branch, str(clone), str(tree)], check=True)
    lock = (tree / "dvc.lock").read_text()
    (tree / "dvc.lock").unlink()
    shutil.copytree(clone / "tiny_base", tree / "tiny_base")
    binaries = TWINFLOW.parent
    done = subprocess.run(
        [str(binaries / "dvc"), "repro", "--no-run-cache"],
        cwd=tree,
        env={
            **os.environ,
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "DVC_SITE_CACHE_DIR": str(tmp_path / "site"),
            "PYTHONPATH": str(tree),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert yaml.safe_load((tree / "dvc.lock").read_text()) == yaml.safe_load(lock)


@pytest.mark.slow
def test_a_run_is_reproduced_in_another_clone(
    clone: Path, first: dict[str, Any], tmp_path: Path, env: dict[str, str], object_store: ObjectStore
) -> None:
    other = make_clone(tmp_path / "other")
    shutil.rmtree(other / "tiny_base")
    done = twinflow(other, "reproduce", first["id"], "--json", env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    agreement = json.loads(done.stdout)
    assert agreement["level"] == "bitwise"
    assert set(agreement["stages"].values()) == {"same"}
    assert object_store.head(run_key(first["id"])) is not None
