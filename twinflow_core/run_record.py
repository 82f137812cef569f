"""What is known of a run: written while it runs, kept in the checkout, and in the bucket once decided."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from twinflow_core.errors import ExitCode, TwinflowError
from twinflow_core.home import state_home
from twinflow_core.registry.store import ObjectStore

RECORD_FILE = "record.json"
RUNS_PREFIX = "runs"
DECIDED = ("promoted", "published", "rejected", "needs-approval")


class NoSuchRun(TwinflowError):
    """No run is called so."""


@dataclass
class StageRecord:
    """One stage of a run: `ran`, `restored` (from the run cache) or `unchanged`, and its seconds."""

    name: str
    outcome: str
    seconds: float


@dataclass
class RunRecord:
    """One run.

    Attributes:
        id: YYYYMMDD-HHMMSS-xxxx.
        number: its place among this checkout's runs. Clocks are set back; this is what orders them.
        state: `running`, `failed`, `interrupted`, or decided: `promoted`, `published` (promotion is off, or
            the gates ran dry), `rejected`, `needs-approval`.
        started, finished: UTC, ISO 8601; finished is empty while it runs.
        inputs: the hash of each part of its inputs.
        commit: the commit it ran from, then the one that holds its dvc.lock.
        stages: what each stage did.
        gates: the outcome of every rule of both gates, as dictionaries.
        decision: promote, reject, needs-approval, or empty before one is made.
        decision_id, version: in the registry; empty if nothing was published.
        metrics: `metrics.json` of the evaluation.
        speed: what was measured on this machine.
        prompt: one of the evaluation's prompts, to try the model with.
        report, grid: paths of the HTML report and of the grid of images.
        error: what, where, fix and code, if the run failed.
        log: path of the run's log.
    """

    id: str
    number: int = 0
    state: str = "running"
    started: str = ""
    finished: str = ""
    model: str = ""
    pid: int = 0
    inputs: dict[str, str] = field(default_factory=dict)
    commit: str = ""
    stages: list[StageRecord] = field(default_factory=list)
    gates: list[dict[str, Any]] = field(default_factory=list)
    decision: str = ""
    reason: str = ""
    decision_id: str = ""
    version: str = ""
    channel: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)
    speed: dict[str, Any] = field(default_factory=dict)
    prompt: str = ""
    report: str = ""
    grid: str = ""
    error: dict[str, Any] = field(default_factory=dict)
    log: str = ""

    @property
    def exit_code(self) -> ExitCode:
        """What the shell is told of this run."""
        if self.state in ("failed", "interrupted"):
            return ExitCode(self.error.get("code", ExitCode.INFRASTRUCTURE))
        return ExitCode.REJECTED if self.state == "rejected" else ExitCode.DONE

    def as_dict(self) -> dict[str, Any]:
        """The record as a JSON document."""
        return asdict(self)


_RECORDS = TypeAdapter(RunRecord)


def new_run_id() -> str:
    """A name for a run that sorts by time: YYYYMMDD-HHMMSS-<4 hex digits>, UTC."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def now() -> str:
    """The time as records tell it: UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def runs_folder(root: Path) -> Path:
    """Where a checkout keeps its runs."""
    return state_home(root) / "runs"


def run_folder(root: Path, run_id: str) -> Path:
    """Where a checkout keeps one run's record, logs and report."""
    return runs_folder(root) / run_id


def save_record(root: Path, record: RunRecord) -> None:
    """Write a run's record, whole or not at all."""
    folder = run_folder(root, record.id)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{RECORD_FILE}.new"
    temporary.write_text(json.dumps(record.as_dict(), indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, folder / RECORD_FILE)


def parse_record(document: str | bytes, where: str) -> RunRecord:
    """Read a record back. Raises `TwinflowError` if it is damaged."""
    try:
        return _RECORDS.validate_python(json.loads(document))
    except (ValueError, RecursionError):
        raise TwinflowError(
            "A run's record is damaged.", where=where, fix="Remove the run's folder; its decision stays."
        ) from None


def local_records(root: Path) -> list[RunRecord]:
    """The records of this checkout's runs, oldest first."""
    paths = sorted(runs_folder(root).glob(f"*/{RECORD_FILE}"))
    return [parse_record(path.read_bytes(), str(path)) for path in paths]


def last_decided(root: Path) -> RunRecord | None:
    """The latest of this checkout's runs that came to a decision."""
    decided = [record for record in local_records(root) if record.state in DECIDED]
    return max(decided, key=lambda record: (record.number, record.finished, record.id)) if decided else None


def next_number(root: Path) -> int:
    """The number of the run that begins now; only the holder of the training lock may ask."""
    return 1 + max((record.number for record in local_records(root)), default=0)


def run_key(run_id: str, name: str = RECORD_FILE) -> str:
    """Where the bucket keeps a file of a run. The record is written last: a run that has one is whole."""
    return f"{RUNS_PREFIX}/{run_id}/{name}"


def published_run_ids(store: ObjectStore) -> list[str]:
    """The runs whose records the bucket holds, oldest first."""
    keys = (info.key.split("/") for info in store.list(f"{RUNS_PREFIX}/"))
    return sorted(parts[1] for parts in keys if len(parts) == 3 and parts[2] == RECORD_FILE)


def published_record(store: ObjectStore, run_id: str) -> RunRecord:
    """A run's record as the bucket holds it. Raises `ObjectMissing` if there is none."""
    key = run_key(run_id)
    return parse_record(store.get(key), store.address(key))


def all_records(root: Path, store: ObjectStore) -> list[RunRecord]:
    """This checkout's runs and those that the bucket knows from elsewhere, oldest first."""
    records = {record.id: record for record in local_records(root)}
    for run_id in published_run_ids(store):
        if run_id not in records:
            records[run_id] = published_record(store, run_id)
    return [records[run_id] for run_id in sorted(records)]


def find_record(root: Path, store: ObjectStore, text: str) -> RunRecord:
    """A run of this clone or of the bucket by its id; see `find_run_id`."""
    local = {record.id: record for record in local_records(root)}
    found = find_run_id({*local, *published_run_ids(store)}, text, store)
    return local[found] if found in local else published_record(store, found)


def find_run_id(known: Iterable[str], text: str, store: ObjectStore) -> str:
    """The one of some run ids that begins or ends with a text.

    Raises:
        NoSuchRun: there is none.
        TwinflowError: there are several.
    """
    fitting = [run_id for run_id in known if run_id.startswith(text) or run_id.endswith(text)]
    if len(fitting) == 1:
        return fitting[0]
    kind = TwinflowError if fitting else NoSuchRun
    raise kind(
        f"{len(fitting)} runs fit {text}." if fitting else f"There is no run {text}.",
        where=store.address(RUNS_PREFIX),
        fix="`twinflow runs` lists them.",
    )
