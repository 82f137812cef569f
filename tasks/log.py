"""What a run says: to people on standard error, to Prefect's log, and progress to both."""

from __future__ import annotations

import logging
import sys
import time
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger
from rich.console import Console
from rich.progress import Progress, TaskID

from twinflow_core.progress import Step, progress_bar

SECONDS_BETWEEN_ARTIFACTS = 2.0
SECONDS_BETWEEN_LINES = 20.0
Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


def run_log() -> Log:
    """Prefect's logger of the present run, or a plain one outside a run."""
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger("twinflow")


def say(line: str) -> None:
    """Tell people one line; standard output stays free for documents."""
    print(line, file=sys.stderr, flush=True)


class ProgressShown:
    """A stage's progress as a bar (lines where there is no terminal) and as an artifact in Prefect's UI.

    Use as a context manager around the stage.
    """

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._rows: dict[str, TaskID] = {}
        self._artifact: UUID | None = None
        self._last_artifact = float("-inf")
        self._last_line = time.monotonic()

    def __enter__(self) -> ProgressShown:
        if self._console.is_terminal:
            self._bar = progress_bar(self._console)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._artifact is not None:
            update_progress_artifact(self._artifact, progress=100.0)

    def show(self, step: Step) -> None:
        """Show how far the stage has come."""
        if self._bar is not None:
            if step.label not in self._rows:
                self._rows[step.label] = self._bar.add_task(step.label, total=step.total, note="")
            self._bar.update(self._rows[step.label], completed=step.done, note=step.note)
        elif time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            say(f"  {step.label}: {step.done}/{step.total} {step.note}".rstrip())
        self._show_in_prefect(step)

    def _show_in_prefect(self, step: Step) -> None:
        if TaskRunContext.get() is None and FlowRunContext.get() is None:
            return
        if time.monotonic() - self._last_artifact < SECONDS_BETWEEN_ARTIFACTS:
            return
        self._last_artifact = time.monotonic()
        percent = 100.0 * step.done / max(step.total, 1)
        told = f"{step.label}: {step.done} of {step.total} {step.note}".rstrip()
        if self._artifact is None:
            key = f"progress-{self._stage}"
            artifact = create_progress_artifact(progress=percent, key=key, description=told)
            assert isinstance(artifact, UUID)
            self._artifact = artifact
        else:
            update_progress_artifact(self._artifact, progress=percent, description=told)
