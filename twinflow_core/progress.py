"""Progress of a long step: a bar on a terminal, one machine-readable line a second elsewhere.

A stage runs as a grandchild of the flow that shows it, so its progress travels as lines on standard error,
`@progress {"label": .., "done": .., "total": .., "note": ..}`, which `read_progress` turns back into values.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")
PREFIX = "@progress "
SECONDS_BETWEEN_LINES = 1.0


@dataclass(frozen=True)
class Step:
    """How far a step has come: `done` of `total` items, and a short note (a loss, a score)."""

    label: str
    done: int
    total: int
    note: str = ""


def read_progress(line: str) -> Step | None:
    """The step that a line of output tells of, or None for any other line."""
    if not line.startswith(PREFIX):
        return None
    try:
        return Step(**json.loads(line[len(PREFIX) :]))
    except (json.JSONDecodeError, TypeError):
        return None


def progress_bar(console: Console) -> Progress:
    """The one look of every bar in this project."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


class Reporter:
    """Tells how far one step has come. Use as a context manager; call `update` as often as you like."""

    def __init__(self, label: str, total: int) -> None:
        self.label = label
        self.total = total
        self._console = Console(stderr=True)
        self._bar = progress_bar(self._console) if self._console.is_terminal else None
        self._task = self._bar.add_task(label, total=total, note="") if self._bar else None
        self._last_line = float("-inf")

    def __enter__(self) -> Reporter:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, done: int, note: str = "") -> None:
        """Say that `done` items of the total are finished."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, note=note)
            return
        now = time.monotonic()
        if now - self._last_line >= SECONDS_BETWEEN_LINES or done >= self.total:
            self._last_line = now
            line = json.dumps(asdict(Step(self.label, done, self.total, note)))
            print(f"{PREFIX}{line}", file=sys.stderr, flush=True)


def track(items: Iterable[Item], label: str, total: int) -> Iterator[Item]:
    """Yield the items and report each as done once its consumer asks for the next."""
    with Reporter(label, total) as reporter:
        for done, item in enumerate(items, start=1):
            yield item
            reporter.update(done)
