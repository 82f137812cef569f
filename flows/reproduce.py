"""Recompute a run from what the bucket holds of it, and say how exactly it agrees."""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.command import run_command
from tasks.dvc import DvcTree, child_environment, share_cache, stage_order
from tasks.dvc_remote import pull
from tasks.git import require_repository
from tasks.log import ProgressShown, run_log, say
from tasks.run import training_lock
from tasks.workspace import fetch_code, working_tree
from twinflow_core.errors import ExitCode, InfrastructureError
from twinflow_core.gates.metrics import UnusableMetricError, metric_value
from twinflow_core.home import HOME_VARIABLE, state_home
from twinflow_core.local.services import up
from twinflow_core.registry.s3 import make_s3_client
from twinflow_core.registry.store import ObjectStore
from twinflow_core.run_record import RunRecord, find_run_id, published_record, published_run_ids, run_key

# Their inputs are the user's folders, which may be gone; what they made of them is in the bucket.
PULLED = ("raw", "base")
LOG_FILE = "log.txt"


@dataclass
class Agreement:
    """How exactly a run was reproduced.

    Attributes:
        level: `bitwise` (every recomputed output has the recorded hash), `statistical` (not that, but every
            rule of the quality gate comes out as recorded) or `different`.
        first_difference: the first stage whose output differs, empty if none does.
        stages: by stage, `same` or `different`.
        rules: by rule that came out otherwise, what was recorded and what was found.
    """

    run: str
    level: str = "bitwise"
    first_difference: str = ""
    stages: dict[str, str] = field(default_factory=dict)
    rules: dict[str, str] = field(default_factory=dict)


@flow(name="reproduce", persist_result=False)
def reproduce(run: str, root: str = ".") -> Agreement:
    """Recompute every stage of a run after its data, in a tree and a cache of its own.

    Args:
        run: the run's id, or the beginning or end of it.
        root: any clone of the pipeline; the run's own code comes from the bucket.

    Raises:
        TwinflowError: the bucket holds no such run.
        InfrastructureError: a stage or a service failed.
    """
    top = Path(root).resolve()
    require_repository(top)
    services = up(top, say)
    store = ObjectStore(make_s3_client(services.s3), services.bucket)
    run = find_run_id(published_run_ids(store), run, store)
    record = published_record(store, run)
    place = state_home(top) / "reproduce" / run
    with training_lock(top, f"{run} (reproduction)"):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        snapshot = fetch_code(top, store, record, place)
        with working_tree(top, snapshot, place / "tree") as tree:
            env = child_environment(top, tree, services.environment())
            # Neither the cache nor a checkpoint of the first computation may answer for the second.
            share_cache(place, tree, services.bucket)
            dvc = DvcTree(tree, {**env, HOME_VARIABLE: str(place / "home")}, place / LOG_FILE)
            agreement = _recompute(dvc, record, store)
    shutil.rmtree(place / ".dvc", ignore_errors=True)
    return agreement


def _recompute(dvc: DvcTree, record: RunRecord, store: ObjectStore) -> Agreement:
    recorded = yaml.safe_load(store.get(run_key(record.id, "dvc.lock")))["stages"]
    names = [name for name in stage_order(dvc.tree) if name in recorded]
    pull(dvc, store, recorded, [name for name in names if name in PULLED], run_log().info)
    agreement = Agreement(record.id)
    for name in names:
        if name in PULLED:
            continue
        recompute_stage.with_options(name=name)(name, dvc)
        locked = yaml.safe_load((dvc.tree / "dvc.lock").read_text(encoding="utf-8"))["stages"]
        same = _outputs(locked[name]) == _outputs(recorded[name])
        agreement.stages[name] = "same" if same else "different"
        say(f"  {name:10} {agreement.stages[name]}")
        if not same and not agreement.first_difference:
            agreement.first_difference = name
    if agreement.first_difference:
        metrics = json.loads((dvc.tree / "eval/candidate/metrics.json").read_text(encoding="utf-8"))
        agreement.rules = changed_rules(record.gates, metrics)
        agreement.level = "different" if agreement.rules else "statistical"
    return agreement


@task(cache_policy=NO_CACHE)
def recompute_stage(name: str, dvc: DvcTree) -> None:
    """Run one stage again whatever DVC knows of it."""
    with ProgressShown(name) as progress:
        done = dvc.run(
            "repro",
            "--single-item",
            "--force",
            "--no-run-cache",
            name,
            on_line=run_log().info,
            on_progress=progress.show,
        )
    if done.code != 0:
        raise InfrastructureError(
            f"The stage `{name}` failed.", where=str(dvc.log), fix="Read the end of the log."
        )


def changed_rules(recorded: list[dict[str, Any]], metrics: dict[str, Any]) -> dict[str, str]:
    """The rules of the evaluation that come out otherwise on recomputed metrics.

    A rule on an interval holds if the new value lies in the recorded interval; any other if the new value is
    on the same side of its bound. Margins against the champion are not recomputed.

    Args:
        recorded: the outcomes of the run's gates.
        metrics: the recomputed `metrics.json`.
    """
    changed = {}
    for rule in recorded:
        if rule["kind"] == "margin" or rule["value"] is None:
            continue
        if rule.get("slices") or rule.get("look") == 2:
            continue
        if rule["metric"].split(".")[0] not in ("candidate", "reference", "ratio"):
            continue
        try:
            value = metric_value(metrics, rule["metric"])
        except UnusableMetricError as error:
            changed[rule["id"]] = str(error)
            continue
        held, holds = (_holds(rule["kind"], each, rule["bound"]) for each in (rule["value"], value))
        known = rule["low"] is not None and rule["high"] is not None
        if held != holds or (known and not rule["low"] <= value <= rule["high"]):
            changed[rule["id"]] = f"{rule['metric']} was {rule['value']:.4g} and is {value:.4g}"
    return changed


def _holds(kind: str, value: float, bound: float) -> bool:
    return value >= bound if kind == "min" else value <= bound


def _outputs(stage: dict[str, Any]) -> dict[str, str]:
    return {out["path"]: out["md5"] for out in stage["outs"]}


def _work(options: argparse.Namespace) -> tuple[Any, int]:
    agreement: Agreement = reproduce(options.run)
    if agreement.level == "bitwise":
        print(f"Run {agreement.run} is reproduced bitwise: every recomputed output has the recorded hash.")
    else:
        print(
            f"Run {agreement.run} is reproduced {'statistically' if not agreement.rules else 'NOT'}; "
            f"the first stage that differs is `{agreement.first_difference}`."
        )
        for rule, told in agreement.rules.items():
            print(f"  {rule}: {told}")
    return asdict(agreement), ExitCode.REJECTED if agreement.level == "different" else ExitCode.DONE


if __name__ == "__main__":
    command = argparse.ArgumentParser(prog="python -m flows.reproduce", description=__doc__)
    command.add_argument("run")
    run_command(command, _work)
