"""One Prefect task a stage of dvc.yaml, each `dvc repro -s <stage>` as a child process."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from tasks.dvc import DvcTree
from tasks.log import ProgressShown, run_log, say
from tasks.process import Finished
from twinflow_core.errors import ExitCode, InfrastructureError, TwinflowError
from twinflow_core.full_disk import WORDS, cannot_write
from twinflow_core.run_record import StageRecord
from twinflow_core.stages.entry import ERROR_FILE_VARIABLE

SECONDS_BEFORE_RETRY = 5.0
OUT_OF_MEMORY_CODES = frozenset({-9, 137})
UNCHANGED = re.compile(r"Stage '.*' didn't change, skipping")
RESTORED = re.compile(r"Stage '.*' is cached - skipping run")
RAISED = re.compile(r"(\w+\.)*\w*(Error|Exception)\b")
EXITED = re.compile(r"exited with (-?\d+)")


class StageFault(InfrastructureError):
    """A stage failed for a reason that may pass: worth another try."""


@dataclass(frozen=True)
class StageSettings:
    """How a run treats its stages: its tree, its time limit, how often a passing fault is retried."""

    dvc: DvcTree
    timeout_seconds: float
    retries: int


def run_stage_task(name: str, settings: StageSettings) -> StageRecord:
    """Bring one stage up to date, shown in Prefect as a task with the stage's name.

    Retried only if the infrastructure failed; training then resumes from its last checkpoint.

    Raises:
        TwinflowError: what the stage says is wrong with its input.
        InfrastructureError: the stage crashed, ran out of time, or a service failed.
    """
    shown = reproduce_stage.with_options(name=name, task_run_name=name, retries=settings.retries)
    return shown(name, settings)


def _may_pass(_task: object, _run: object, state: State[StageRecord]) -> bool:
    return isinstance(state.result(raise_on_failure=False), StageFault)


@task(retry_delay_seconds=SECONDS_BEFORE_RETRY, retry_condition_fn=_may_pass, cache_policy=NO_CACHE)
def reproduce_stage(name: str, settings: StageSettings) -> StageRecord:
    """`dvc repro -s <name>`; see `run_stage_task`."""
    log = run_log()
    error_file = settings.dvc.log.with_name(f"{name}.error.json")
    error_file.unlink(missing_ok=True)
    dvc = replace(settings.dvc, env={**settings.dvc.env, ERROR_FILE_VARIABLE: str(error_file)})
    start = time.monotonic()
    with ProgressShown(name) as progress:
        done = dvc.run(
            "repro",
            "--single-item",
            name,
            on_line=log.info,
            on_progress=progress.show,
            timeout_seconds=settings.timeout_seconds,
        )
    if done.code != 0:
        raise _explain(name, done, error_file, settings.dvc.log)
    record = StageRecord(name, _outcome(done), round(time.monotonic() - start, 2))
    say(f"  {name:10} {record.outcome:10} {record.seconds:7.1f} s")
    return record


def _outcome(done: Finished) -> str:
    if any(UNCHANGED.match(line) for line in done.tail):
        return "unchanged"
    return "restored" if any(RESTORED.match(line) for line in done.tail) else "ran"


def _explain(name: str, done: Finished, error_file: Path, log: Path) -> TwinflowError:
    """What the stage itself said, or else what can be told from how it ended."""
    if error_file.exists():
        said = json.loads(error_file.read_text(encoding="utf-8"))
        if said["code"] == ExitCode.INFRASTRUCTURE:
            return StageFault(said["what"], where=said["where"], fix=said["fix"])
        return TwinflowError(said["what"], where=said["where"], fix=said["fix"], code=ExitCode(said["code"]))
    codes = [int(match.group(1)) for line in done.tail if (match := EXITED.search(line))]
    if codes and codes[-1] in OUT_OF_MEMORY_CODES:
        return StageFault(
            f"The stage `{name}` was killed, most likely for want of memory.",
            where=str(log),
            fix="Free memory or lower the batch sizes in params.yaml.",
        )
    full = next((line for line in reversed(done.tail) if WORDS.search(line)), None)
    if full is not None:
        return cannot_write(f"What the stage `{name}` made", full, str(log))
    said = next((line for line in reversed(done.tail) if RAISED.match(line)), "")
    return InfrastructureError(
        f"The stage `{name}` failed{': ' + said if said else '.'}",
        where=str(log),
        fix="Read the end of the log; if it is no fault of your data, report it.",
    )
