"""The stage as DVC runs it: a process of its own, the same bytes wherever and whenever, or nothing at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from twinflow_core.runtime.package import MANIFEST, file_sha256, read_manifest

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parent.parent.parent


def make_root(folder: Path, pipeline: Path) -> Path:
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    params["export"] = {**params["export"], "steps": [1, 2], "opset": 20}
    (folder / "models").mkdir(parents=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    shutil.copytree(pipeline, folder / "models/candidate")
    return folder


def run_stage(root: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONHASHSEED": "11", "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-m", "twinflow_core.stages.export"]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


def test_another_process_in_another_folder_writes_the_same_bytes(
    tiny_pipeline: Path, tiny_package: Path, tmp_path: Path
) -> None:
    root = make_root(tmp_path / "root", tiny_pipeline)
    answer = run_stage(root)
    assert answer.returncode == 0, answer.stderr
    assert "@progress" in answer.stderr
    assert "Warning" not in answer.stderr
    assert read_manifest(root / "export") == read_manifest(tiny_package)
    assert file_sha256(root / "export" / MANIFEST) == file_sha256(tiny_package / MANIFEST)
    assert sorted(path.name for path in root.iterdir()) == ["export", "models", "params.yaml"]


def test_a_missing_candidate_is_one_message(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    answer = run_stage(tmp_path)
    assert answer.returncode == 2
    assert "models/candidate" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not (tmp_path / "export").exists()
