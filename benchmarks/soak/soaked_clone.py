"""A clone with services of its own in which runs are started, struck and looked after."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import yaml
from filelock import FileLock, Timeout

from benchmarks.soak.ledger import Cell, Ledger
from benchmarks.soak.registry_invariants import registry_at, require_sound
from tests.pipeline_clone import TWINFLOW, make_clone, retrain
from twinflow_core.local.daemon import MARK
from twinflow_core.local.services import Services, down, up
from twinflow_core.registry.registry import Registry

GONE_SECONDS = 10.0
RUN_SECONDS = 1800.0
STAGE_SECONDS = 600.0


class SoakedClone:
    """The clone; a context manager that starts its services, does its first run, and stops them at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = make_clone(folder)
        self.services: Services
        self.durations: dict[str, float] = {}

    def __enter__(self) -> SoakedClone:
        try:
            self.services = up(self.folder, print)
            first = self.run_to_the_end()
            assert first["state"] == "promoted", first["reason"]
        except BaseException:
            down(self.folder, print)
            raise
        self.durations = {stage["name"]: stage["seconds"] for stage in first["stages"]}
        return self

    def __exit__(self, *_: object) -> None:
        down(self.folder, print)

    @property
    def registry(self) -> Registry:
        """The registry, past any proxy."""
        return registry_at(self.services.s3, self.services.bucket, "tiny")

    def environment(self, **changed: str) -> dict[str, str]:
        """What a command of this clone is started with."""
        own = {"PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"}
        return {**os.environ, **self.services.environment(), **own, **changed}

    def set_param(self, path: str, value: object) -> None:
        """Change one key of params.yaml, as "section.key"."""
        section, key = path.split(".")
        document = yaml.safe_load((self.folder / "params.yaml").read_text(encoding="utf-8"))
        document[section][key] = value
        (self.folder / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """`twinflow <arguments>` in a session of its own."""
        return subprocess.Popen(
            [str(TWINFLOW), *arguments],
            cwd=self.folder,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run_to_the_end(self) -> dict[str, Any]:
        """A run that nobody disturbs. Raises `AssertionError` unless it ends well."""
        return retrain(self.folder, self.services.environment())

    def processes(self) -> list[psutil.Process]:
        """Every living process that a run of this clone started, by the folder in its environment."""
        found = []
        for process in psutil.process_iter():
            try:
                variables: Mapping[str, str] = process.environ()
                started_here = str(self.folder) in variables.get("PYTHONPATH", "")
                if started_here and MARK not in variables and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.AccessDenied, psutil.NoSuchProcess):
                continue
        return [process for process in found if process.pid != os.getpid()]

    def stage_process(self, stage: str) -> psutil.Process | None:
        """The Python process of a stage, not the shell that DVC puts before it."""
        for process in self.processes():
            try:
                line = process.cmdline()
            except psutil.NoSuchProcess:
                continue
            if line[1:3] == ["-m", f"twinflow_core.stages.{stage}"]:
                return process
        return None

    def wait_for_stage(self, stage: str, run: subprocess.Popen[str]) -> psutil.Process | None:
        """That process as soon as it is there; None if the run ends without it, or it never comes."""
        deadline = time.monotonic() + STAGE_SECONDS
        while run.poll() is None and time.monotonic() < deadline:
            process = self.stage_process(stage)
            if process is not None:
                return process
            time.sleep(0.02)
        return None

    def kill_everything(self) -> int:
        """SIGKILL to all processes of this clone's runs at once, as if the power of the machine failed."""
        struck = self.processes()
        for process in struck:
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        return len(struck)

    def require_all_gone(self) -> float:
        """Seconds until no process is left and the training lock is free.

        Raises:
            AssertionError: some live on after ten seconds, or the lock is held.
        """
        start = time.monotonic()
        while left := self.processes():
            if time.monotonic() - start > GONE_SECONDS:
                told = [(process.pid, " ".join(process.cmdline())[:120]) for process in left]
                raise AssertionError(f"alive after {GONE_SECONDS:.0f} s: {told}")
            time.sleep(0.05)
        seconds = round(time.monotonic() - start, 2)
        lock = FileLock(self.folder / ".twinflow/locks/training.lock")
        try:
            lock.acquire(timeout=0)
            lock.release()
        except Timeout:
            raise AssertionError("the training lock is held by nobody alive") from None
        return seconds

    def require_whole_world(self) -> int:
        """How many entries staging's log has, all of it sound, and no half-made tree is left.

        Raises:
            AssertionError: something is not as it must be.
        """
        entries = require_sound(self.registry)
        for path in (self.folder / ".twinflow/runs").glob("*/record.json"):
            json.loads(path.read_text(encoding="utf-8"))
        return len(entries)


def soak_in_a_clone(
    name: str, work: Path, cells: Sequence[tuple[str, int]], strike: Callable[[SoakedClone, str, int], Cell]
) -> Ledger:
    """Strike in every cell that the results do not hold already, all in one clone.

    Args:
        name: of the soak, its results and its folder.
        work: where the clone is made.
        cells: what to strike at, and the how-manieth time.
        strike: one cell.
    """
    ledger = Ledger(name)
    if all(f"{at} {number}" in ledger.cells for at, number in cells):
        return ledger
    with SoakedClone(work / name) as clone:
        for at, number in cells:
            key = f"{at} {number}"
            ledger.run(key, partial(strike, clone, at, number))
            if not ledger.cells[key]["passed"]:
                clone.kill_everything()
    return ledger
