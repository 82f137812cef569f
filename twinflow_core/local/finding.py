"""What the doctor says of one thing, and how it asks a program that may be missing, broken or slow."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

CHILD_SECONDS = 120


@dataclass(frozen=True)
class Finding:
    """One line of `twinflow doctor`.

    `wrong` keeps a run from working; a `note` does not, but is good to know; `fix` says what to do.
    """

    name: str
    state: Literal["ok", "note", "wrong"]
    found: str
    fix: str = ""


@dataclass(frozen=True)
class Answer:
    """What a program said: its exit code and its two outputs; code 127 if it could not be run at all."""

    code: int
    output: str
    errors: str

    @property
    def last_error(self) -> str:
        """The last line that it wrote to standard error."""
        lines = [line.strip() for line in self.errors.splitlines() if line.strip()]
        return lines[-1] if lines else f"exit code {self.code}"


def ask(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> Answer:
    """Run a program to its end and give its answer; never raises."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=CHILD_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Answer(127, "", str(error))
    return Answer(done.returncode, done.stdout, done.stderr)


def ask_python(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> tuple[dict[str, Any] | None, Answer]:
    """Run this interpreter with arguments; its last line of output is a JSON object, or None if it failed."""
    answer = ask([sys.executable, *arguments], folder, environment)
    try:
        document = json.loads(answer.output.splitlines()[-1])
    except (ValueError, IndexError):
        return None, answer
    return (document if isinstance(document, dict) else None), answer
