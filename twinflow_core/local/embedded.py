"""Starting an embedded service once, however many ask for it, and finding it again later."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from twinflow_core.errors import InfrastructureError
from twinflow_core.local.daemon import Daemon, is_alive, start_daemon, stop_daemon
from twinflow_core.local.loopback import free_ports, is_free

Say = Callable[[str], None]
ATTEMPTS = 3
POLL_SECONDS = 0.1
LOG_NAME = "server.log"
LAST_LINES = 5


@dataclass(frozen=True)
class Recipe:
    """How one service is run.

    Args:
        name: as a person calls it.
        folder: holds its data, its log and the record of its process.
        ports: how many it listens on.
        command: its command line, by the ports.
        is_healthy: whether it answers, by the ports.
        start_seconds: how long a start may take on a slow, busy machine.
        stop_seconds: how long it gets to stop in order before it is killed.
        environment: the whole environment of its process.
    """

    name: str
    folder: Path
    ports: int
    command: Callable[[tuple[int, ...]], list[str]]
    is_healthy: Callable[[tuple[int, ...]], bool]
    start_seconds: float
    stop_seconds: float
    environment: dict[str, str] = field(repr=False)

    @property
    def log(self) -> Path:
        """Where the service's output goes."""
        return self.folder / LOG_NAME


@dataclass(frozen=True)
class Running:
    """A service's record: its process and the ports it was given."""

    daemon: Daemon
    ports: tuple[int, ...]


def ensure_running(recipe: Recipe, say: Say) -> Running:
    """Start the service unless it runs. Safe to call from many processes at once: it starts once.

    A record left by a reboot or a killed process is recognised, and the service started again on its data.

    Raises:
        InfrastructureError: it does not come up.
    """
    recipe.folder.mkdir(parents=True, exist_ok=True)
    with _turn(recipe, say):
        running = read_record(recipe.folder)
        if running and is_alive(running.daemon):
            if running.daemon.mark != str(recipe.folder):
                say(f"This folder was moved; starting the {recipe.name} again in its new place")
            elif _becomes_healthy(recipe, running):
                return running
            else:
                say(f"The {recipe.name} hangs; starting it again")
        return _start(recipe, running, say)


def ensure_stopped(recipe: Recipe, say: Say) -> bool:
    """Stop the service, in order; data stay. Returns whether it was running."""
    if not recipe.folder.is_dir():
        return False
    with _turn(recipe, say):
        running = read_record(recipe.folder)
        if running and is_alive(running.daemon):
            say(f"Stopping the {recipe.name}")
        return stop_daemon(running.daemon if running else None, recipe.folder, recipe.stop_seconds)


def service_lock(folder: Path) -> FileLock:
    """Held by whoever starts or stops this service."""
    return FileLock(folder / ".lock")


def read_record(folder: Path) -> Running | None:
    """The last start's record, whether or not it still runs; None if there is none, or it is torn.

    A copied folder holds the record of the service of the folder that it was copied from: that is none of its
    own. A moved one holds its own, made in a place that is no more.
    """
    try:
        document = json.loads((folder / "process.json").read_text(encoding="utf-8"))
        running = Running(Daemon(**document["daemon"]), tuple(int(port) for port in document["ports"]))
        copied = running.daemon.mark != str(folder) and Path(running.daemon.mark).exists()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None if copied else running


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(partial, path)


@contextmanager
def _turn(recipe: Recipe, say: Say) -> Iterator[None]:
    lock = service_lock(recipe.folder)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"Waiting for another command that starts or stops the {recipe.name}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _start(recipe: Recipe, before: Running | None, say: Say) -> Running:
    # A killed start may have left its process without a record, holding the data folder.
    stop_daemon(before.daemon if before else None, recipe.folder, recipe.stop_seconds)
    began = time.monotonic()
    say(f"Starting the {recipe.name}")
    for attempt in range(ATTEMPTS):
        # The same address as last time, so that bookmarks and clients' settings stay right.
        keep = attempt == 0 and before is not None and len(before.ports) == recipe.ports
        ports = (
            before.ports if keep and before and all(map(is_free, before.ports)) else free_ports(recipe.ports)
        )
        daemon = start_daemon(recipe.command(ports), recipe.folder, recipe.environment, recipe.log)
        running = Running(daemon, ports)
        write_private(recipe.folder / "process.json", json.dumps(asdict(running)))
        if _becomes_healthy(recipe, running):
            say(f"The {recipe.name} is up after {time.monotonic() - began:.1f} s")
            return running
        stop_daemon(daemon, recipe.folder, recipe.stop_seconds)
    raise InfrastructureError(
        f"The {recipe.name} does not start: {_last_words(recipe.log)}",
        where=str(recipe.log),
        fix="Read this log; if it says nothing of use, run `twinflow doctor`.",
    )


def _becomes_healthy(recipe: Recipe, running: Running) -> bool:
    deadline = time.monotonic() + recipe.start_seconds
    while time.monotonic() < deadline:
        if recipe.is_healthy(running.ports):
            return True
        if not is_alive(running.daemon):
            return False
        time.sleep(POLL_SECONDS)
    return False


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "no log"
    return " | ".join(line.strip() for line in lines[-LAST_LINES:] if line.strip()) or "an empty log"
