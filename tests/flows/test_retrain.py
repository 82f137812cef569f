"""The whole line on real services: DVC, S3, Prefect, torch, ONNX Runtime; tiny numbers, one clone.

The tests run in their order and build on each other, as a user's day does.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from PIL import Image

from tests.pipeline_clone import TWINFLOW, make_clone, twinflow
from twinflow_core.data.shapes_render import render_dataset
from twinflow_core.local.services import Services
from twinflow_core.registry.store import ObjectStore
from twinflow_core.run_record import run_key

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("pipeline")]
STAGES = ["raw", "base", "prepare", "encode", "reference", "finetune", "evaluate", "export"]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clone(tmp_path_factory.mktemp("clone") / "pipeline")


@pytest.fixture(scope="module")
def env(services: Services) -> dict[str, str]:
    return services.environment()


@pytest.fixture(scope="module")
def first(clone: Path, env: dict[str, str]) -> dict[str, Any]:
    """The first run of the clone."""
    return retrain(clone, env)


@pytest.fixture
def edited_params(clone: Path) -> Iterator[dict[str, Any]]:
    """The clone's parameters, to be changed in place and written with `write_params`; put back at the end."""
    path = clone / "params.yaml"
    before = path.read_text()
    yield yaml.safe_load(before)
    path.write_text(before)


def write_params(clone: Path, params: dict[str, Any]) -> None:
    (clone / "params.yaml").write_text(yaml.safe_dump(params))


def retrain(clone: Path, env: dict[str, str], code: int = 0) -> dict[str, Any]:
    done = twinflow(clone, "retrain", "--json", env=env)
    assert done.returncode == code, done.stderr[-3000:]
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def outcomes(run: dict[str, Any]) -> dict[str, str]:
    return {stage["name"]: stage["outcome"] for stage in run["stages"]}


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


def test_no_secret_is_written_down(clone: Path, first: dict[str, Any], env: dict[str, str]) -> None:
    for path in (clone / ".twinflow/runs").rglob("*"):
        if path.is_file():
            assert env["AWS_SECRET_ACCESS_KEY"].encode() not in path.read_bytes(), path


def test_a_second_run_has_nothing_to_do_within_seconds(
    clone: Path, first: dict[str, Any], env: dict[str, str]
) -> None:
    start = time.monotonic()
    done = twinflow(clone, "retrain", env=env)
    assert done.returncode == 0
    assert "Nothing to do" in done.stdout
    assert first["id"] in done.stdout
    assert time.monotonic() - start < 20


def test_a_served_schedule_runs_the_flow(clone: Path, first: dict[str, Any], env: dict[str, str]) -> None:
    serving = subprocess.Popen(
        [str(TWINFLOW), "serve", "--cron", "0 3 1 1 *"],
        cwd=clone,
        env={**os.environ, **env, "PYTHONPATH": str(clone)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    prefect = [str(TWINFLOW.with_name("prefect")), "deployment"]
    try:
        deployment = wait_for(lambda: call([*prefect, "inspect", "retrain/scheduled"], clone, env), 120)
        assert "CANCEL_NEW" in deployment
        assert "0 3 1 1 *" in deployment
        said = call([*prefect, "run", "retrain/scheduled", "--watch"], clone, env)
        assert "Nothing to do" in said
    finally:
        serving.terminate()
        serving.wait(timeout=60)
    # The schedule outlives the process that served it.
    assert "'paused': False" in call([*prefect, "inspect", "retrain/scheduled"], clone, env)


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


@pytest.fixture(scope="module")
def photos(clone: Path) -> Path:
    """A user's folder of PNGs with a caption beside each, ignored by git."""
    folder = clone / "data/photos"
    folder.mkdir(parents=True)
    for index, (pixels, caption, _) in enumerate(render_dataset(60, 5)):
        Image.fromarray(pixels).save(folder / f"{index:03d}.png")
        (folder / f"{index:03d}.txt").write_text(caption)
    return folder


def test_of_two_runs_at_once_one_works_and_one_has_nothing_to_do(
    clone: Path, first: dict[str, Any], photos: Path, env: dict[str, str]
) -> None:
    params = yaml.safe_load((clone / "params.yaml").read_text())
    params["data"]["source"] = "data/photos"
    write_params(clone, params)
    environment = {**os.environ, **env, "PYTHONPATH": str(clone), "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            [str(TWINFLOW), "retrain", "--json"],
            cwd=clone,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=900) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    documents = [json.loads(out) for out, _ in said]
    assert sorted(document["nothing_to_do"] for document in documents) == [False, True]
    assert documents[0]["id"] == documents[1]["id"]
    assert documents[0]["state"] == "promoted"
    assert sum("waits until it is done" in err for _, err in said) == 1
    assert outcomes(documents[0])["base"] == "unchanged"


def test_one_image_more_retrains_and_an_interruption_leaves_nothing(
    clone: Path, first: dict[str, Any], photos: Path, env: dict[str, str]
) -> None:
    params = yaml.safe_load((clone / "params.yaml").read_text())
    assert params["data"]["source"] == "data/photos", "the test before this one has trained on the photos"
    pixels, caption, _ = next(iter(render_dataset(1, 99)))
    Image.fromarray(pixels).save(photos / "new.png")
    (photos / "new.txt").write_text(caption)
    command = subprocess.Popen(
        [str(TWINFLOW), "retrain"],
        cwd=clone,
        env={**os.environ, **env, "PYTHONPATH": str(clone), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 600
    while not stage_processes(clone, "finetune") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert stage_processes(clone, "finetune")
    command.send_signal(signal.SIGTERM)
    _, said = command.communicate(timeout=60)
    assert command.returncode == 130
    assert re.search(r"changed since \S+: data$", said, re.MULTILINE)
    for stage in ("raw", "prepare", "encode"):
        assert re.search(rf"{stage} +ran", said), stage
    assert "Traceback" not in said
    assert stage_processes(clone, "") == []
    assert list((clone / ".twinflow/runs").glob("*/tree")) == []
    records = [json.loads(path.read_text()) for path in (clone / ".twinflow/runs").glob("*/record.json")]
    last = max(records, key=lambda record: record["id"])
    assert last["state"] == "interrupted"
    branches = subprocess.run(["git", "branch"], cwd=clone, capture_output=True, text=True).stdout
    assert last["id"] not in branches


def stage_processes(clone: Path, stage: str) -> list[int]:
    """Processes that run a stage in this clone; any stage for an empty name."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "cwd", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        inside = str(process.info["cwd"] or "").startswith(str(clone))
        alive = process.info["status"] != psutil.STATUS_ZOMBIE
        if inside and alive and f"twinflow_core.stages.{stage}" in line:
            found.append(process.info["pid"])
    return found


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
