"""Processes that outlive the command that started them, and are ended by their own checkout alone."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

# Every process of a service carries its folder in this variable. A pid can be given to a stranger after a
# reboot; this mark cannot.
MARK = "TWINFLOW_SERVICE"
SAME_START_SECONDS = 1.0


@dataclass(frozen=True)
class Daemon:
    """A started process: its pid, and its start (seconds since the epoch), which no later owner shares."""

    pid: int
    started: float


def start_daemon(command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path) -> Daemon:
    """Start a process in a session of its own: a Ctrl-C or a closed terminal does not reach it.

    Args:
        folder: the service's folder: its working directory and its mark.
        environment: the whole environment of the process.
        log: takes its output; the log of the start before is kept as `<log>.previous`.
    """
    if log.exists():
        os.replace(log, log.with_name(log.name + ".previous"))
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**environment, MARK: str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Daemon(process.pid, psutil.Process(process.pid).create_time())


def is_alive(daemon: Daemon) -> bool:
    """Whether this very process runs: not another with its pid, not one that is dead but not yet reaped."""
    try:
        process = psutil.Process(daemon.pid)
        same = abs(process.create_time() - daemon.started) < SAME_START_SECONDS
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def stop_daemon(daemon: Daemon | None, folder: Path, grace_seconds: float) -> bool:
    """End a service and everything it started: SIGTERM, then SIGKILL for what is left.

    Args:
        daemon: the recorded process, if there is a record.
        folder: the service's folder; processes with its mark are ended even if the record is lost.

    Returns:
        Whether anything was running.
    """
    processes = _marked_processes(folder)
    if daemon is not None and is_alive(daemon):
        processes.setdefault(daemon.pid, psutil.Process(daemon.pid))
    if not processes:
        return False
    _signal(processes, signal.SIGTERM)
    _, alive = psutil.wait_procs(list(processes.values()), timeout=grace_seconds)
    if alive:
        _signal({process.pid: process for process in alive}, signal.SIGKILL)
        psutil.wait_procs(alive, timeout=grace_seconds)
    return True


def _signal(processes: Mapping[int, psutil.Process], number: int) -> None:
    for process in processes.values():
        try:
            # psutil compares the start time first, so that a recycled pid is never hit.
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def _marked_processes(folder: Path) -> dict[int, psutil.Process]:
    marked = {}
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                marked[process.pid] = process
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return marked
