"""One run: what every task of the flow needs to know of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from tasks.dvc import DvcTree
from tasks.log import say
from tasks.workspace import Snapshot
from twinflow_core.home import state_home
from twinflow_core.params import Params
from twinflow_core.registry.registry import Registry
from twinflow_core.registry.store import ObjectStore
from twinflow_core.run_record import RunRecord, run_folder, save_record

LOG_FILE = "log.txt"


@dataclass(frozen=True)
class Run:
    """A run under way.

    Attributes:
        root: the main checkout.
        params: the run's parameters.
        snapshot: the commit that it runs from.
        dvc: its working tree, the environment of its children, and its log.
        store, registry: the bucket.
        record: what is known of it so far; tasks add to it and save it.
        scratch: where its files go instead of the run's own folder, when it is judged once more.
    """

    root: Path
    params: Params
    snapshot: Snapshot
    dvc: DvcTree
    store: ObjectStore
    registry: Registry
    record: RunRecord
    scratch: Path | None = None

    @property
    def tree(self) -> Path:
        """The run's working tree."""
        return self.dvc.tree

    @property
    def folder(self) -> Path:
        """Where the run's record, log and report are kept."""
        return self.scratch or run_folder(self.root, self.record.id)

    @property
    def channel(self) -> str:
        """The channel whose champion the candidate is held against: `staging` even if none is promoted."""
        to = self.params.registry.promote_to
        return "staging" if to == "none" else to

    def save(self) -> None:
        """Write the record down."""
        save_record(self.root, self.record)

    def locked(self) -> dict[str, Any]:
        """The stages of the run's dvc.lock; empty before any stage was locked."""
        path = self.tree / "dvc.lock"
        if not path.exists():
            return {}
        stages: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["stages"]
        return stages

    def output_hash(self, path: str) -> str:
        """The hash that DVC has for a stage's output."""
        outs = (out for stage in self.locked().values() for out in stage.get("outs", []))
        return next(str(out["md5"]) for out in outs if out["path"] == path)


@contextmanager
def training_lock(root: Path, run_id: str) -> Iterator[None]:
    """One run at a time in this checkout: wait, and say so, while another holds the lock.

    The operating system frees the lock when its holder dies.
    """
    folder = state_home(root) / "locks"
    folder.mkdir(exist_ok=True)
    holder = folder / "training.holder"
    lock = FileLock(folder / "training.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"Run {_holder(holder)} is at work in this clone; run {run_id} waits until it is done.")
        lock.acquire()
    try:
        holder.write_text(f"{run_id} (process {os.getpid()})", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return "of somebody else"
