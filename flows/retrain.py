"""The retraining flow: from the user's tree to a decision, and to what staging then serves."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.command import run_command
from tasks.dvc import DvcTree, child_environment, needed_for, share_cache, stage_order
from tasks.git import require_repository
from tasks.inputs import run_inputs, what_changed
from tasks.judge import check_serving, judge_quality, judge_serving, keep_decisions
from tasks.log import say
from tasks.notify import notify, print_end, print_nothing_to_do
from tasks.promote import actor, promote_candidate
from tasks.publish import publish_record, publish_version, push_data
from tasks.report import write_report
from tasks.run import LOG_FILE, Run, training_lock
from tasks.stages import StageSettings, run_stage_task
from tasks.workspace import (
    Snapshot,
    commit_lock,
    forget,
    sweep_working_trees,
    take_snapshot,
    working_tree,
)
from twinflow_core.errors import TwinflowError
from twinflow_core.gates.checks import check_rules
from twinflow_core.gates.decision import Decision
from twinflow_core.local.services import Services, up
from twinflow_core.params import PARAMS_FILE, Params, load_params
from twinflow_core.registry.channel import StaleDecision
from twinflow_core.registry.duties import NotThisIdentity
from twinflow_core.registry.permission import ApprovalMissing, RejectedByPerson
from twinflow_core.registry.registry import ChannelHeld, Registry
from twinflow_core.registry.s3 import make_s3_client
from twinflow_core.registry.store import ObjectStore
from twinflow_core.run_record import (
    RunRecord,
    last_decided,
    new_run_id,
    next_number,
    now,
    run_folder,
    run_key,
    runs_folder,
    save_record,
)

STATE_NAMES = {
    "promoted": "Promoted",
    "published": "Published",
    "rejected": "Rejected",
    "needs-approval": "Needs approval",
}
NOTHING_TO_DO = "Nothing to do"
# What a run comes to that passed both gates and is stopped by a person's word, or may not promote.
STOPPED_BY = {
    ApprovalMissing: "needs-approval",
    ChannelHeld: "published",
    NotThisIdentity: "published",
    RejectedByPerson: "rejected",
}
LAST_JUDGED = "evaluate"
# How often a run judges anew because the channel moved on while it judged.
JUDGING_ATTEMPTS = 3


# Prefect's name of the run is the run's id, so that what the UI, the bucket and git show is one name.
@flow(name="retrain", flow_run_name=new_run_id, persist_result=False)
def retrain(root: str = ".") -> State[None]:
    """Run the pipeline once.

    Args:
        root: the repository.

    Raises:
        TwinflowError: the input or the set-up is wrong.
        InfrastructureError: a service, a stage or a machine failed.
    """
    top = Path(root).resolve()
    params = load_params(top / PARAMS_FILE)
    check_rules(params)
    require_repository(top)
    services = up(top, say)
    store = ObjectStore(make_s3_client(services.s3), services.bucket)
    run_id = flow_run.get_name() or new_run_id()
    inputs = run_inputs(top, params, services.s3)
    # DVC looks at base.folder also where the base is of the hub.
    snapshot = take_snapshot(top, run_id, [params.data.source, params.base.folder])
    try:
        with training_lock(top, run_id):
            standing = standing_run(top, store, inputs)
            if standing is not None:
                forget(top, snapshot)
                print_nothing_to_do(standing)
                return Completed(name=NOTHING_TO_DO, message=f"The decision of {standing.id} stands.")
            sweep_working_trees(top, runs_folder(top))
            record = _begin(top, run_id, params, snapshot, inputs)
            with (
                _recorded(top, record),
                working_tree(top, snapshot, run_folder(top, run_id) / "tree") as tree,
            ):
                _execute(_open_run(top, tree, params, snapshot, services, store, record))
    except BaseException:
        if not (run_folder(top, run_id) / "dvc.lock").exists():
            forget(top, snapshot)
        raise
    return Completed(name=STATE_NAMES[record.state], message=record.reason)


def standing_run(root: Path, store: ObjectStore, inputs: dict[str, str]) -> RunRecord | None:
    """The last decided run, if its inputs were the present ones and the bucket still has its record."""
    last = last_decided(root)
    if last is None or what_changed(last.inputs, inputs) or store.head(run_key(last.id)) is None:
        return None
    return last


def _begin(root: Path, run_id: str, params: Params, snapshot: Snapshot, inputs: dict[str, str]) -> RunRecord:
    folder = run_folder(root, run_id)
    last = last_decided(root)
    record = RunRecord(
        id=run_id,
        number=next_number(root),
        started=now(),
        model=params.registry.model,
        pid=os.getpid(),
        inputs=inputs,
        commit=snapshot.commit,
        log=str(folder / LOG_FILE),
    )
    save_record(root, record)
    changed = what_changed(last.inputs, inputs) if last else []
    say(f"Run {run_id}" + (f": changed since {last.id}: {', '.join(changed)}" if last and changed else ""))
    for name in snapshot.left_out:
        say(f"  {name} is large and not tracked by git: it is no part of this run.")
    return record


@contextmanager
def _recorded(root: Path, record: RunRecord) -> Iterator[None]:
    """Keep what became of a run that does not come to a decision."""
    try:
        yield
    except TwinflowError as error:
        record.state, record.reason, record.error = "failed", error.what, error.as_dict()
        raise
    except Exception as error:
        record.state, record.reason = "failed", f"{type(error).__name__}: {error}"
        raise
    except BaseException:
        record.state, record.reason = "interrupted", "It was interrupted."
        raise
    finally:
        record.finished = now()
        save_record(root, record)


def _open_run(
    root: Path,
    tree: Path,
    params: Params,
    snapshot: Snapshot,
    services: Services,
    store: ObjectStore,
    record: RunRecord,
) -> Run:
    share_cache(root, tree, services.bucket)
    dvc = DvcTree(tree, child_environment(root, tree, services.environment()), Path(record.log))
    last = last_decided(root)
    lock = run_folder(root, last.id) / "dvc.lock" if last else None
    if lock is not None and lock.exists():
        (tree / "dvc.lock").write_bytes(lock.read_bytes())
    registry = Registry(store, params.registry.model, params.registry.approval)
    return Run(root, params, snapshot, dvc, store, registry, record)


def _execute(run: Run) -> None:
    order = stage_order(run.tree)
    first = needed_for(run.tree, LAST_JUDGED)
    if (run.tree / "dvc.lock").exists():
        run.dvc.run("checkout", "--force", "--allow-missing")
    _run_stages(run, [name for name in order if name in first])
    decisions: list[Decision] = []
    exported = False
    for _ in range(JUDGING_ATTEMPTS):
        verdict = judge_quality(run)
        decisions = [verdict.decision]
        if verdict.decision.outcome == "reject":
            break
        if not exported:
            _run_stages(run, [name for name in order if name not in first])
            served = check_serving(run)
            exported = True
        decisions.append(judge_serving(run, served, verdict.decision, None).decision)
        if decisions[-1].outcome == "reject":
            break
        push_data(run)
        run.record.version = publish_version(run)
        decisions[-1] = judge_serving(run, served, verdict.decision, run.record.version).decision
        if _try_to_promote(run, decisions):
            break
    _conclude(run, decisions, verdict.champion_samples)


def _run_stages(run: Run, names: list[str]) -> None:
    options = run.params.run
    settings = StageSettings(run.dvc, 60.0 * options.stage_timeout_minutes, options.stage_retries)
    for name in names:
        run.record.stages.append(run_stage_task(name, settings))
        run.save()


def _try_to_promote(run: Run, decisions: list[Decision]) -> bool:
    """Promote if the decision and the policy allow it; False if the channel moved on, so that it is stale."""
    record, decision = run.record, decisions[-1]
    record.decision_id = keep_decisions(run, decisions)
    record.channel = run.channel
    if decision.outcome == "needs-approval":
        record.state, record.reason = "needs-approval", "The gates leave it to a person."
    elif decision.mode == "dry-run":
        record.state, record.reason = "published", "The gates would promote it; they run dry."
    elif run.params.registry.promote_to == "none":
        record.state, record.reason = "published", "The gates passed; registry.promote_to is none."
    elif decision.champion == record.version:
        record.state, record.reason = "promoted", f"{run.channel} serves this very version already."
    else:
        try:
            reason = f"run {record.id} passed both gates"
            promote_candidate(
                run.registry,
                run.channel,
                record.version,
                record.decision_id,
                decision.generation,
                actor(),
                reason,
            )
        except StaleDecision as error:
            say(f"{error.what} Judging again.")
            record.state, record.reason = "rejected", error.what
            return False
        except (ApprovalMissing, ChannelHeld, NotThisIdentity, RejectedByPerson) as error:
            record.state, record.reason = STOPPED_BY[type(error)], error.what
            return True
        record.state, record.reason = "promoted", f"{run.channel} serves it now."
    return True


def _conclude(run: Run, decisions: list[Decision], champion_samples: Path | None) -> None:
    """Whatever was decided: the lock to the branch, the report, everything to the bucket, the end told."""
    record, last = run.record, decisions[-1]
    record.decision = last.outcome
    record.gates = [rule.model_dump(mode="json") for each in decisions for rule in each.outcomes]
    if last.outcome == "reject":
        blocking = [rule.id for rule in last.outcomes if rule.blocks]
        dry = " (the gates run dry)" if last.mode == "dry-run" else ""
        why = f"missed: {', '.join(blocking)}" if blocking else "gates.on_no_champion says so"
        record.state, record.reason = "rejected", f"The {last.gate} gate rejects it; {why}{dry}."
        record.decision_id = keep_decisions(run, decisions)
    lock = run.folder / "dvc.lock"
    lock.write_bytes((run.tree / "dvc.lock").read_bytes())
    record.commit = commit_lock(run.root, run.snapshot, lock)
    record.finished = now()
    write_report(run, decisions, champion_samples)
    if last.outcome == "reject":
        push_data(run)
    publish_record(run)
    run.save()
    notify(run, decisions)
    print_end(run, decisions)


def _work(options: argparse.Namespace) -> tuple[object, int]:
    root = Path(options.root).resolve()
    state = retrain(root=str(root), return_state=True)
    if not state.is_completed():
        state.result()
    record = last_decided(root)
    assert record is not None
    return {"nothing_to_do": state.name == NOTHING_TO_DO, **record.as_dict()}, record.exit_code


if __name__ == "__main__":
    command = argparse.ArgumentParser(prog="python -m flows.retrain", description=__doc__)
    command.add_argument("--root", default=".")
    run_command(command, _work)
