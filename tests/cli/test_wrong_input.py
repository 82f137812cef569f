"""Every slip of a user: one clear message with what to do, the right exit code, nothing half written."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.pipeline_clone import REPOSITORY, TWINFLOW, twinflow
from twinflow_core.local.services import Services


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """As much of a clone as a command needs that stops before it runs anything."""
    root = tmp_path / "clone"
    root.mkdir()
    shutil.copy(REPOSITORY / "tests/params.tiny.yaml", root / "params.yaml")
    for name in ("dvc.yaml", "flows", "tasks"):
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, root / name)
        else:
            shutil.copy(REPOSITORY / name, root)
    (root / "tests/tiny_shapes").mkdir(parents=True)
    (root / "tests/tiny_shapes/shapes.yaml").write_text("count: 9\nseed: 0\n")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    return root


def edit(path: Path, change: Callable[[dict], None]) -> None:
    params = yaml.safe_load(path.read_text())
    change(params)
    path.write_text(yaml.safe_dump(params))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p["finetune"].update(learning_rat=1e-3), ["learning_rat", "learning_rate"]),
        (lambda p: p["finetune"].update(batch_size=-4), ["finetune.batch_size", "-4"]),
        (lambda p: p["data"].update(source="no/such/folder"), ["no/such/folder", "data.source"]),
        (lambda p: p["gates"]["serving"][0].update(metric="parity.max_ab"), ["parity.max_abs"]),
        (
            lambda p: p["gates"]["quality"]["shapes"][0].update(slices=["countin"]),
            ["gates.quality.shapes.0", "`counting`"],
        ),
        (lambda p: p["registry"].update(bucket="NO"), ["registry.bucket"]),
        (lambda p: p["registry"].update(approval=["prodution"]), ["registry.channels lacks `prodution`"]),
    ],
)
def test_wrong_parameters(clone: Path, change: Callable[[dict], None], words: list[str]) -> None:
    edit(clone / "params.yaml", change)
    done = twinflow(clone, "retrain", env={"PYTHONPATH": ""})
    assert done.returncode == 2
    assert done.stdout == ""
    for word in (*words, "params.yaml", "to do:"):
        assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert not (clone / ".twinflow/services").exists()


def test_an_error_for_programs(clone: Path) -> None:
    edit(clone / "params.yaml", lambda p: p["finetune"].update(batch_size=0))
    done = twinflow(clone, "retrain", "--json", env={"PYTHONPATH": ""})
    error = json.loads(done.stdout)["error"]
    assert error["code"] == done.returncode == 2
    assert error["where"].endswith("finetune.batch_size")


def test_no_git(clone: Path) -> None:
    done = twinflow(clone, "retrain", env={"PYTHONPATH": "", "PATH": str(TWINFLOW.parent)})
    assert done.returncode == 2
    assert "git is not installed" in done.stderr
    assert "Traceback" not in done.stderr


def test_outside_a_clone(tmp_path: Path) -> None:
    done = twinflow(tmp_path, "runs", env={"PYTHONPATH": ""})
    assert done.returncode == 2
    assert "no clone of the pipeline" in done.stderr


def test_no_repository(clone: Path, services: Services) -> None:
    shutil.rmtree(clone / ".git")
    done = twinflow(clone, "retrain", env={"PYTHONPATH": "", **services.environment()})
    assert done.returncode == 2
    assert "not a git repository" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_s3_server_that_is_down(clone: Path, services: Services) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**services.environment(), "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}", "PYTHONPATH": ""}
    done = twinflow(clone, "retrain", env=env)
    assert done.returncode == 3
    assert f"127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (clone / ".twinflow/runs").exists()


def test_a_wrong_secret(clone: Path, services: Services) -> None:
    env = {**services.environment(), "AWS_SECRET_ACCESS_KEY": "not-the-secret", "PYTHONPATH": ""}
    done = twinflow(clone, "retrain", env=env)
    assert done.returncode == 2
    assert "to do:" in done.stderr
    assert "not-the-secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_misspelt_verb_and_an_unknown_run(clone: Path, services: Services) -> None:
    assert twinflow(clone, "retain", env={"PYTHONPATH": ""}).returncode == 2
    done = twinflow(clone, "show", "20260101-000000-abcd", env={"PYTHONPATH": "", **services.environment()})
    assert done.returncode == 2
    assert "There is no run" in done.stderr


def test_a_prompt_before_anything_was_promoted(clone: Path, services: Services) -> None:
    edit(clone / "params.yaml", lambda p: p["registry"].update(model="never-trained"))
    done = twinflow(clone, "generate", "a red circle", env={"PYTHONPATH": "", **services.environment()})
    assert done.returncode == 2
    assert "serves nothing yet" in done.stderr
    assert not (clone / "image.png").exists()


def test_help_is_quick_and_light(tmp_path: Path) -> None:
    best = float("inf")
    for _ in range(3):
        start = time.monotonic()
        assert subprocess.run([TWINFLOW, "--help"], cwd=tmp_path, capture_output=True).returncode == 0
        best = min(best, time.monotonic() - start)
    assert best < 1.5
    script = (
        "import sys, twinflow_core.cli; print([m for m in ('torch', 'prefect', 'boto3') if m in sys.modules])"
    )
    done = subprocess.run([TWINFLOW.with_name("python"), "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
