"""The DAG as the flow reads it, and a run's private DVC settings, against DVC itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.dvc import needed_for, share_cache, stage_order
from tests.pipeline_clone import REPOSITORY
from twinflow_core.errors import TwinflowError


def test_the_order_has_every_stage_after_those_it_reads() -> None:
    order = stage_order(REPOSITORY)
    assert sorted(order) == sorted(
        ["raw", "base", "prepare", "encode", "reference", "finetune", "evaluate", "export"]
    )
    for earlier, later in [
        ("raw", "prepare"),
        ("encode", "finetune"),
        ("reference", "evaluate"),
        ("base", "encode"),
    ]:
        assert order.index(earlier) < order.index(later)


def test_judging_needs_everything_but_the_export() -> None:
    assert set(stage_order(REPOSITORY)) - needed_for(REPOSITORY, "evaluate") == {"export"}
    assert needed_for(REPOSITORY, "prepare") == {"raw", "prepare"}


@pytest.mark.parametrize(
    "text", ["", "stages: 3", "stages: {a: {deps: [b], outs: [c]}, b: {deps: [c], outs: [b]}}"]
)
def test_a_damaged_dag_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "dvc.yaml").write_text(text)
    with pytest.raises(TwinflowError, match=r"dvc\.yaml"):
        stage_order(tmp_path)


def test_dvc_reads_the_private_settings(tmp_path: Path) -> None:
    root, tree = tmp_path / "root", tmp_path / "tree"
    for place in (root, tree):
        (place / ".dvc").mkdir(parents=True)
        (place / ".dvc/config").write_text((REPOSITORY / ".dvc/config").read_text())
        subprocess.run(["git", "init", "-q"], cwd=place, check=True)
    share_cache(root, tree, "my-bucket")

    def dvc(*arguments: str) -> str:
        env = {**os.environ, "DVC_SITE_CACHE_DIR": str(tmp_path / "site")}
        command = [sys.executable, "-m", "dvc", *arguments]
        return subprocess.run(
            command, cwd=tree, env=env, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert dvc("cache", "dir") == str(root / ".dvc/cache")
    assert dvc("remote", "list").split()[:2] == ["bucket", "s3://my-bucket/dvc"]
    assert dvc("config", "remote.bucket.verify") == "true"
    assert dvc("config", "core.remote") == "bucket"
