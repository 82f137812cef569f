"""The service as its users run it: `twinflow serve-model` in a process of its own, outside any clone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMMAND = [sys.executable, "-c", "from twinflow_core.cli.app import main; main()", "serve-model", "--json"]
ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def running_service(folder: Path, environment: dict[str, str], *options: str) -> Iterator[tuple[str, int]]:
    """The address and the process id of a service that runs in `folder` until the end of the block."""
    told = {**os.environ, **environment, "XDG_CACHE_HOME": str(folder), "PYTHONPATH": str(ROOT)}
    with (folder / "service.log").open("w") as log:
        process = subprocess.Popen(
            [*COMMAND, "--port", "0", *options],
            cwd=folder,
            env=told,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, (folder / "service.log").read_text()
        yield json.loads(line)["url"], process.pid
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()
