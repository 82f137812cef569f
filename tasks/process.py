"""Child processes: their output to a log and a file, their progress to a bar, their end for certain."""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from twinflow_core.errors import InfrastructureError
from twinflow_core.progress import Step, read_progress

GUARD = Path(__file__).with_name("guard.py")
# Ten seconds after a cancel nothing of a run may live: half of that is left for the rest.
GRACE_SECONDS = 5.0
TAIL_LINES = 40
SECRET_NAMES = re.compile(r"SECRET|TOKEN|PASSWORD|ACCESS_KEY|AUTH|API_KEY", re.IGNORECASE)
MASK = "*****"


@dataclass(frozen=True)
class Finished:
    """How a child ended: its exit code (128 + n if signal n ended it) and its last lines, secrets masked."""

    code: int
    tail: tuple[str, ...]


def run_logged(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    log: Path,
    on_line: Callable[[str], None] | None = None,
    on_progress: Callable[[Step], None] | None = None,
    timeout_seconds: float | None = None,
    grace_seconds: float = GRACE_SECONDS,
) -> Finished:
    """Run a command to its end; on timeout, on any exception here and on this process's death, end its group.

    Args:
        command: program and arguments, no shell.
        cwd: its folder.
        env: its whole environment. Values whose names look secret are masked in all that is logged.
        log: file that every line is appended to.
        on_line: called with every line that is not progress.
        on_progress: called with every progress line's step.
        timeout_seconds: after so many seconds the group is ended.
        grace_seconds: between SIGTERM and SIGKILL.

    Raises:
        InfrastructureError: the time was up, or the program could not be started.
    """
    mask = _masker(env)
    log.parent.mkdir(parents=True, exist_ok=True)
    guard = [sys.executable, "-I", "-S", str(GUARD), str(grace_seconds), *command]
    child = subprocess.Popen(
        guard,
        cwd=cwd,
        env={**env, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    try:
        with log.open("a", encoding="utf-8") as file:
            for raw in _lines(child, deadline):
                step = read_progress(raw)
                if step is not None:
                    if on_progress is not None:
                        on_progress(step)
                    continue
                line = mask(raw)
                file.write(line + "\n")
                file.flush()
                tail.append(line)
                if on_line is not None:
                    on_line(line)
        return Finished(child.wait(), tuple(tail))
    except _TimeIsUp:
        raise InfrastructureError(
            f"`{' '.join(command)}` took longer than {timeout_seconds:.0f} seconds and was ended.",
            where=str(log),
            fix="Raise run.stage_timeout_minutes in params.yaml, or make the work smaller.",
        ) from None
    finally:
        _end(child, grace_seconds)


class _TimeIsUp(Exception):
    """The deadline passed while the child ran."""


def _lines(child: subprocess.Popen[bytes], deadline: float | None) -> Iterator[str]:
    """The child's lines as they come. A carriage return ends a line too: bars of other tools use it."""
    assert child.stdout is not None
    os.set_blocking(child.stdout.fileno(), False)
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise _TimeIsUp
            if not selector.select(left):
                continue
            chunk = os.read(child.stdout.fileno(), 65536)
            if not chunk:
                break
            *complete, rest = re.split(rb"[\r\n]+", rest + chunk)
            yield from (line.decode(errors="replace") for line in complete if line)
    if rest:
        yield rest.decode(errors="replace")


def _masker(env: Mapping[str, str]) -> Callable[[str], str]:
    """A function that hides every secret value of an environment (shorter than 6 characters: left alone)."""
    secrets = sorted(
        {value for name, value in env.items() if SECRET_NAMES.search(name) and len(value) >= 6},
        key=len,
        reverse=True,
    )
    if not secrets:
        return lambda line: line
    pattern = re.compile("|".join(map(re.escape, secrets)))
    return lambda line: pattern.sub(MASK, line)


def _end(child: subprocess.Popen[bytes], grace_seconds: float) -> None:
    """Close the guard's pipe, which ends the group, and wait for the guard."""
    assert child.stdin is not None
    child.stdin.close()
    try:
        child.wait(timeout=grace_seconds + 10.0)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    finally:
        if child.stdout is not None:
            child.stdout.close()
