"""A candidate that is judged once more: the evaluation in this clone, or a run out of the bucket."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.dvc import DvcTree, child_environment, share_cache
from tasks.dvc_remote import pull
from tasks.git import git
from tasks.log import run_log, say
from tasks.run import LOG_FILE, Run
from tasks.workspace import Snapshot, fetch_code, working_tree
from twinflow_core.errors import TwinflowError
from twinflow_core.gates.checks import check_rules
from twinflow_core.home import state_home
from twinflow_core.local.services import Services
from twinflow_core.params import PARAMS_FILE, load_params
from twinflow_core.registry.registry import Registry
from twinflow_core.registry.store import ObjectStore
from twinflow_core.run_record import RunRecord, new_run_id, published_record, published_run_ids

IN_THIS_CLONE = "eval/candidate"
QUALITY_STAGE, SERVING_STAGE = "evaluate", "export"
# What judging reads of a run: the prompts' source, what was drawn, the model in torch, the package.
READ = ("prepare", "reference", "finetune", QUALITY_STAGE, SERVING_STAGE)


@contextmanager
def open_candidate(root: Path, text: str, services: Services, store: ObjectStore) -> Iterator[Run]:
    """The candidate with all that judging reads, in a tree; what is made meanwhile is removed at the end.

    Args:
        root: the repository.
        text: `eval/candidate` for what `dvc repro` made in this clone; else a run's id or the beginning or
            end of it, or a version or its beginning: the run that made it.
        services: the servers' variables for children.
        store: the bucket.

    Raises:
        TwinflowError: nothing fits or several things do, or this clone's evaluation is not up to date.
    """
    scratch = state_home(root) / "judge" / new_run_id()
    scratch.mkdir(parents=True)
    try:
        if Path(text).as_posix().removeprefix("./").rstrip("/") == IN_THIS_CLONE:
            yield _this_clone(root, scratch, services, store)
        else:
            record = published_record(store, _run_of(root, text, store))
            snapshot = fetch_code(root, store, record, scratch)
            with working_tree(root, snapshot, scratch / "tree") as tree:
                yield _opened_run(root, tree, scratch, snapshot, services, store, record)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _this_clone(root: Path, scratch: Path, services: Services, store: ObjectStore) -> Run:
    params = load_params(root / PARAMS_FILE)
    dvc = DvcTree(root, child_environment(root, root, services.environment()), scratch / LOG_FILE)
    commit = git(root, "rev-parse", "--verify", "--quiet", "HEAD", check=False) or "none"
    record = RunRecord(f"clone-{commit[:12]}", model=params.registry.model)
    snapshot = Snapshot("", commit, (), ())
    registry = Registry(store, params.registry.model)
    run = Run(root, params, snapshot, dvc, store, registry, record, scratch)
    if not up_to_date(run, QUALITY_STAGE):
        raise TwinflowError(
            "The evaluation in this clone is not what its parameters, data and code give.",
            where=str(root / IN_THIS_CLONE),
            fix=f"Run `dvc repro {QUALITY_STAGE}`, or name a run or a version to judge.",
        )
    return run


def _opened_run(
    root: Path,
    tree: Path,
    scratch: Path,
    snapshot: Snapshot,
    services: Services,
    store: ObjectStore,
    record: RunRecord,
) -> Run:
    """A published run, by its own parameters and code, its data out of the cache or the bucket."""
    params = load_params(tree / PARAMS_FILE)
    check_rules(params)
    share_cache(root, tree, services.bucket)
    dvc = DvcTree(tree, child_environment(root, tree, services.environment()), scratch / LOG_FILE)
    run = Run(root, params, snapshot, dvc, store, Registry(store, params.registry.model), record, scratch)
    say(f"Judging run {record.id}, version {record.version[:12] or 'none'}.")
    locked = run.locked()
    pull(dvc, store, locked, [name for name in READ if name in locked], run_log().info)
    return run


def up_to_date(run: Run, stage: str) -> bool:
    """Whether a stage's output in the run's tree is what dvc.lock says, made from what lies there now."""
    return stage in run.locked() and run.dvc.run("status", "--quiet", stage).code == 0


def _run_of(root: Path, text: str, store: ObjectStore) -> str:
    """The run that a user means by a run's id or by a version."""
    runs = [each for each in published_run_ids(store) if each.startswith(text) or each.endswith(text)]
    registry = Registry(store, load_params(root / PARAMS_FILE).registry.model)
    versions = [each for each in registry.versions() if each.startswith(text)]
    if len(runs) + len(versions) != 1:
        found = f"{len(runs)} runs and {len(versions)} versions fit" if runs or versions else "Nothing fits"
        raise TwinflowError(
            f"{found} `{text}`.",
            where=store.address(""),
            fix=f"`twinflow runs` lists runs and versions; {IN_THIS_CLONE} names this clone's own evaluation.",
        )
    if runs:
        return runs[0]
    if run := registry.judgements.run_that_made(versions[0]):
        return run
    raise TwinflowError(
        f"No decision says which run made version {versions[0][:12]}.",
        where=f"the registry of {registry.model}",
        fix="Name the run.",
    )
