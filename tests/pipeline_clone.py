"""A clone of this repository, as it is now, in which the whole pipeline runs in seconds.

`python -m tests.pipeline_clone FOLDER` makes one to try things by hand.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.tiny_pipeline import build_tiny_pipeline

REPOSITORY = Path(__file__).resolve().parents[1]
TWINFLOW = Path(sys.executable).with_name("twinflow")
# A secret of the user's that a run has in its environment and must never write down.
# Put together at run time, so that this file and its compiled form do not hold it.
CANARY = "-".join(("canary", "of", "these", "tests", "2f9c"))
# Weights of the bundled base are of no use to a tiny run, and large.
LEFT_OUT = ("assets/base/",)


def make_clone(clone: Path) -> Path:
    """Copy all files that git would take, with the tiny parameters and a tiny base model, and commit them."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listing.split("\0")):
        if (REPOSITORY / name).is_file() and not name.startswith(LEFT_OUT):
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, clone / name)
    shutil.copy2(REPOSITORY / "tests/params.tiny.yaml", clone / "params.yaml")
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "clone"]):
        identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        subprocess.run(["git", *identity, *command], cwd=clone, check=True)
    # After the commit: the base is a folder that git does not know, as a user's own would be.
    build_tiny_pipeline(clone / "tiny_base")
    return clone


def twinflow(
    clone: Path, *arguments: str, env: dict[str, str] | None = None, timeout: float = 900
) -> subprocess.CompletedProcess[str]:
    """Run `twinflow <arguments>` in a clone, on one core a process."""
    return subprocess.run(
        [str(TWINFLOW), *arguments],
        cwd=clone,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(clone), **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def write_params(clone: Path, params: dict[str, Any]) -> None:
    """Put new parameters into a clone."""
    (clone / "params.yaml").write_text(yaml.safe_dump(params))


def retrain(clone: Path, env: dict[str, str], code: int = 0) -> dict[str, Any]:
    """Run `twinflow retrain` in a clone, which must end with `code`; gives the run's document."""
    done = twinflow(clone, "retrain", "--json", env=env)
    assert done.returncode == code, done.stderr[-3000:]
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def outcomes(run: dict[str, Any]) -> dict[str, str]:
    """What became of each stage: ran, or unchanged."""
    return {stage["name"]: stage["outcome"] for stage in run["stages"]}


if __name__ == "__main__":
    make_clone(Path(sys.argv[1]))
