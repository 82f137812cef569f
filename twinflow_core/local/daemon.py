"""Processes that outlive the command that started them, and are ended by their own checkout alone."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

# Every process of a service carries its folder in this variable. A pid can be given to a stranger after a
# reboot, and a start time shifts with the clock; this mark stays.
MARK = "TWINFLOW_SERVICE"
SAME_START_SECONDS = 1.0
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Daemon:
    """A started process: its pid, its start (seconds since the epoch), and the mark that it carries."""

    pid: int
    started: float
    mark: str


def start_daemon(command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path) -> Daemon:
    """Start a process in a session of its own: a Ctrl-C or a closed terminal does not reach it.

    Args:
        folder: the service's folder: its working directory and its mark.
        environment: the whole environment of the process.
        log: takes its output; the log of the start before is kept as `<log>.previous`.
    """
    if log.exists():
        os.replace(log, log.with_name(log.name + ".previous"))
    mark = str(folder)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**environment, MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    daemon = Daemon(process.pid, psutil.Process(process.pid).create_time(), mark)
    # A new process shows its environment only some moments after its start.
    while process.poll() is None and not is_alive(daemon):
        time.sleep(POLL_SECONDS / 10)
    return daemon


def is_alive(daemon: Daemon) -> bool:
    """Whether this very process runs: not another with its pid, not one that is dead but not yet reaped."""
    try:
        process = psutil.Process(daemon.pid)
        return _runs(process) and _is_marked(process, daemon)
    except psutil.NoSuchProcess:
        return False


def stop_daemon(daemon: Daemon | None, folder: Path, grace_seconds: float) -> bool:
    """End a service and everything it started: SIGTERM, then SIGKILL for what is left.

    Args:
        daemon: the recorded process, if there is a record.
        folder: the service's folder; processes with its mark are ended even if the record is lost, and those
            with the record's own, which names the folder's place before it was moved.

    Returns:
        Whether anything was running.
    """
    processes = _marked_processes({str(folder), daemon.mark} if daemon else {str(folder)})
    if daemon is not None and is_alive(daemon):
        processes.setdefault(daemon.pid, psutil.Process(daemon.pid))
    if not processes:
        return False
    for number in (signal.SIGTERM, signal.SIGKILL):
        _signal(processes.values(), number)
        deadline = time.monotonic() + grace_seconds
        while any(map(_runs, processes.values())) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    return True


def _runs(process: psutil.Process) -> bool:
    """Whether it still does anything: a zombie that nobody reaps (no init in a container) does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_marked(process: psutil.Process, daemon: Daemon) -> bool:
    try:
        return process.environ().get(MARK) == daemon.mark
    except psutil.AccessDenied:
        # Only the second choice: start times move when the clock is set.
        return abs(process.create_time() - daemon.started) < SAME_START_SECONDS


def _signal(processes: Iterable[psutil.Process], number: int) -> None:
    for process in processes:
        try:
            # psutil compares the start time first, so that a recycled pid is never hit.
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def _marked_processes(marks: set[str]) -> dict[int, psutil.Process]:
    marked = {}
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) in marks and _runs(process):
                marked[process.pid] = process
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return marked
