"""Other data than before: a user's own folder, two runs at once, one image more, an interruption."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from PIL import Image

from tests.pipeline_clone import TWINFLOW, outcomes, write_params
from twinflow_core.data.shapes_render import render_dataset

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photos(clone: Path) -> Iterator[Path]:
    """A user's folder of 200 PNGs with a caption beside each, ignored by git; parameters are put back in the end."""
    before = (clone / "params.yaml").read_text()
    folder = clone / "data/photos"
    folder.mkdir(parents=True)
    for index, (pixels, caption, _) in enumerate(render_dataset(200, 5)):
        Image.fromarray(pixels).save(folder / f"{index:03d}.png")
        (folder / f"{index:03d}.txt").write_text(caption)
    yield folder
    (clone / "params.yaml").write_text(before)


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
