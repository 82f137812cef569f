"""Two runs in one clone: the second waits and says for whom, and a run that died keeps nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.pipeline_clone import REPOSITORY

HOLD = """
import sys
from pathlib import Path
from tasks.run import training_lock

with training_lock(Path(sys.argv[1]), sys.argv[2]):
    print("holds", flush=True)
    sys.stdin.readline()
"""


def _start(root: Path, run: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root), run],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


def test_a_second_run_waits_for_the_first_and_not_for_a_dead_one(tmp_path: Path) -> None:
    first, second = _start(tmp_path, "first"), None
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "holds\n"
        second = _start(tmp_path, "second")
        assert second.stdout is not None
        told = second.stdout.readline()
        assert told.startswith(f"Run first (process {first.pid}) is at work in this clone; run second waits")
        first.kill()
        assert second.stdout.readline() == "holds\n"
    finally:
        for process in filter(None, (first, second)):
            process.kill()
            process.communicate()
