"""Stages on a disk that takes no more: one message, nothing half made, and afterwards the same bytes.

The limit is the operating system's own on the size of a file, which needs no rights: a write beyond it fails in
the middle, as on a full disk. `make soak` fills a real file system where it may mount one.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.pipeline_clone import REPOSITORY
from twinflow_core.errors import ExitCode, InfrastructureError, unexpected
from twinflow_core.stages.entry import ERROR_FILE_VARIABLE

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("full disk")]
LINE = ("raw", "prepare", "base", "encode", "finetune")


def run_stage(folder: Path, stage: str, largest_file: int | None = None) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    return subprocess.run(
        [sys.executable, "-m", f"twinflow_core.stages.{stage}"],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "OMP_NUM_THREADS": "1",
            ERROR_FILE_VARIABLE: str(folder / "error.json"),
        },
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=limit,
        check=False,
    )


def content(folder: Path) -> dict[str, str]:
    """Every file of the stages' outputs, half-made ones too."""
    files = [
        path for top in ("data", "models") for path in sorted((folder / top).rglob("*")) if path.is_file()
    ]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


@pytest.fixture(scope="module")
def line(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stages, each first on a disk that is full, then on one that is not."""
    folder = tmp_path_factory.mktemp("line")
    document = yaml.safe_load((REPOSITORY / "tests/params.tiny.yaml").read_text())
    document["base"]["folder"] = str(tiny_pipeline)
    document["data"]["source"] = str(REPOSITORY / "tests/tiny_shapes")
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    return folder


@pytest.mark.parametrize("stage", LINE)
def test_a_full_disk_is_one_message_and_leaves_nothing(line: Path, stage: str) -> None:
    before = content(line)
    done = run_stage(line, stage, largest_file=700)
    assert done.returncode == ExitCode.INFRASTRUCTURE, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    told = json.loads((line / "error.json").read_text())
    assert "cannot be written" in told["what"]
    assert "space" in told["fix"]
    assert content(line) == before
    assert not list(line.rglob("*.partial"))
    again = run_stage(line, stage)
    assert again.returncode == 0, again.stderr[-2000:]


def test_what_nobody_foresaw_is_told_even_where_no_log_can_be_written() -> None:
    told = unexpected(ValueError("odd"), Path("/dev/full"))
    assert isinstance(told, InfrastructureError)
    assert "odd" in told.what
