"""A flow as a child process: the command waits for it through signals and takes over its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from twinflow_core.cli.output import print_document
from twinflow_core.errors import TwinflowError
from twinflow_core.home import HOME_VARIABLE, state_home

# What Prefect logs is in its UI and in the run's log; the terminal is for what people need.
QUIET = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}


def run_flow(
    root: Path, flow: str, arguments: Sequence[str], environment: Mapping[str, str], as_json: bool
) -> None:
    """Run `python -m flows.<flow>` in the root and exit as it does.

    Args:
        root: the repository.
        flow: the module below `flows`.
        arguments: its command line.
        environment: the services' variables.
        as_json: print the document that the flow leaves, and send all else to standard error.

    Raises:
        TwinflowError: the flows are not there.
    """
    if not (root / "flows" / f"{flow}.py").is_file():
        raise TwinflowError(
            "The pipeline's flows are not here.", where=str(root / "flows"), fix="Run twinflow in the clone."
        )
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        code = _wait(
            subprocess.Popen(
                [sys.executable, "-m", f"flows.{flow}", *arguments, "--result", str(result)],
                cwd=root,
                env={**os.environ, HOME_VARIABLE: str(state_home(root)), **QUIET, **environment},
                stdout=sys.stderr if as_json else None,
            )
        )
        if as_json and result.exists():
            document: Any = json.loads(result.read_text(encoding="utf-8"))
            print_document(document)
    raise typer.Exit(code if code >= 0 else 128 - code)


def _wait(child: subprocess.Popen[bytes]) -> int:
    """Wait for the child whatever comes. The terminal sends it Ctrl-C itself; a SIGTERM is handed on."""

    def hand_on(number: int, _frame: FrameType | None) -> None:
        child.send_signal(number)

    before = signal.signal(signal.SIGTERM, hand_on)
    try:
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                continue
    finally:
        signal.signal(signal.SIGTERM, before)
