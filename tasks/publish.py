"""What a run made, put into the bucket and read back: DVC's objects, the package, the run's record."""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import psutil
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.dvc import REMOTE_PREFIX, cache_folder
from tasks.dvc_remote import members, object_key
from tasks.git import git
from tasks.log import run_log
from tasks.model_card import package_with_card
from tasks.run import LOG_FILE, Run
from twinflow_core.registry.digest import digest_file
from twinflow_core.registry.faults import ObjectMissing, StoredObjectDamaged
from twinflow_core.run_record import RECORD_FILE, run_key

READERS = 8


@task(name="push data", cache_policy=NO_CACHE)
def push_data(run: Run) -> int:
    """Push every object of the run's dvc.lock to the bucket, and read back what was not there before.

    An object whose size in the bucket is wrong is replaced: DVC itself would take it for present.

    Returns:
        How many objects were read back, by SHA-256.

    Raises:
        StoredObjectDamaged: the bucket does not give back what was pushed.
    """
    wanted = _objects_of(run)
    before = {info.key: info.size for info in run.store.list(f"{REMOTE_PREFIX}/files/")}
    for key, path in wanted.items():
        if key in before and before[key] != path.stat().st_size:
            run.store.delete(key)
            del before[key]
    fresh = {key: path for key, path in wanted.items() if key not in before}
    run.dvc.require("push", on_line=run_log().info)
    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(lambda item: _require_same(run, *item), fresh.items()))
    return len(fresh)


@task(name="publish version", cache_policy=NO_CACHE)
def publish_version(run: Run) -> str:
    """Publish the exported package with its model card, lineage and metrics; gives the version.

    All are told by content alone, so that the same package judged again is the same version. Which run and
    which commit made it stands in the decision and in the run's record.
    """
    lineage = {
        "data": run.output_hash("data/raw"),
        "base": run.output_hash("models/base"),
        "candidate": run.output_hash("models/candidate"),
        "package": run.output_hash("export"),
    }
    told = ("scorer", "reference", "candidate", "ratio", "sizes")
    evaluation = {name: run.record.metrics[name] for name in told if name in run.record.metrics}
    with package_with_card(run, lineage, evaluation) as package:
        return run.registry.publish(package, lineage, evaluation)


@task(name="publish record", cache_policy=NO_CACHE)
def publish_record(run: Run) -> None:
    """Write the run's immutable record: lock, parameters, code as a git bundle, environment, speeds, report.

    `record.json` comes last, so that a run that has one is whole.
    """
    for name, path in (
        ("dvc.lock", run.tree / "dvc.lock"),
        ("params.yaml", run.tree / "params.yaml"),
        ("report.html", run.folder / "report.html"),
        ("grid.png", run.folder / "grid.png"),
        (LOG_FILE, run.folder / LOG_FILE),
    ):
        if path.exists():
            run.store.put_file(run_key(run.record.id, name), path)
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "code.bundle"
        git(run.root, "bundle", "create", "--quiet", str(bundle), f"refs/heads/{run.snapshot.branch}")
        run.store.put_file(run_key(run.record.id, bundle.name), bundle)
    stages = {stage.name: {"outcome": stage.outcome, "seconds": stage.seconds} for stage in run.record.stages}
    speed = {"machine": machine(), "stages": stages, **run.record.speed}
    for name, document in (("environment.json", environment()), ("speed.json", speed)):
        run.store.put(run_key(run.record.id, name), _json(document))
    # Paths of this machine mean nothing elsewhere: the bucket's copy names the objects beside it.
    portable = replace(run.record, report="report.html", grid="grid.png", log=LOG_FILE)
    run.store.put(run_key(run.record.id, RECORD_FILE), _json(portable.as_dict()), if_absent=True)


def machine() -> dict[str, Any]:
    """What speeds depend on: system, processor, cores, memory."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=True),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }


def environment() -> dict[str, Any]:
    """Python, the machine, and the version of every installed package."""
    packages = {item.metadata["Name"]: item.version for item in distributions()}
    return {
        "python": sys.version.split()[0],
        "machine": machine(),
        "packages": dict(sorted(packages.items())),
    }


def _objects_of(run: Run) -> dict[str, Path]:
    """The key in the bucket and the file in the cache of every object that the run's lock names."""
    cache = cache_folder(run.root) / "files" / "md5"
    objects: dict[str, Path] = {}
    for stage in run.locked().values():
        for out in stage.get("outs", []):
            hashes = [str(out["md5"])]
            if hashes[0].endswith(".dir"):
                hashes += members((cache / hashes[0][:2] / hashes[0][2:]).read_bytes())
            for value in hashes:
                objects[object_key(value)] = cache / value[:2] / value[2:]
    return objects


def _require_same(run: Run, key: str, path: Path) -> None:
    try:
        run.store.verify(key, digest_file(path))
    except ObjectMissing:
        raise StoredObjectDamaged(
            "An object that was just pushed is not in the bucket.",
            where=run.store.address(key),
            fix="Check who else writes to or deletes from this bucket, then run again.",
        ) from None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _json(document: Any) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()
