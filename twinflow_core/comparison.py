"""What differs between two versions or runs: parameters, metrics, lineage, files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from twinflow_core.errors import TwinflowError
from twinflow_core.registry.faults import ObjectMissing
from twinflow_core.registry.lookup import find_version, what_serves
from twinflow_core.registry.registry import Registry
from twinflow_core.run_record import NoSuchRun, RunRecord, find_record, run_key

ABSENT = None


@dataclass(frozen=True)
class Side:
    """One of the two: what it was asked for as, its run and version (empty if unknown), and what is known.

    `params`, `metrics`, `lineage` and `files` are flat: a dotted path, or a file's path, to a value.
    """

    name: str
    run: str
    version: str
    params: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    lineage: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """One line: where, the value on either side (None where there is none), and b - a for two numbers."""

    path: str
    a: Any
    b: Any
    change: float | None


def find_side(root: Path, registry: Registry, text: str) -> Side:
    """A channel (what it serves), a version by the beginning of its name, or a run by beginning or end.

    Raises:
        TwinflowError: nothing is called so, several are, or a channel serves nothing yet.
    """
    if text in (registry.known or ()) or text in registry.channels():
        return _of_version(registry, text, what_serves(registry, text))
    if any(version.startswith(text) for version in registry.versions()):
        return _of_version(registry, text, find_version(registry, text))
    try:
        return _of_run(registry, text, find_record(root, registry.store, text))
    except NoSuchRun:
        raise TwinflowError(
            f"Nothing is called `{text}`: no channel, no version and no run.",
            where=registry.store.address(""),
            fix="`twinflow history` shows channels and versions, `twinflow runs` lists runs.",
        ) from None


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    """The paths at which two flat documents differ, in order."""
    found = []
    for path in sorted({*a, *b}):
        left, right = a.get(path), b.get(path)
        if left != right:
            found.append(Difference(path, left, right, _change(left, right)))
    return found


def flat(document: Any, path: str = "") -> dict[str, Any]:
    """The leaves of a document by dotted path; the elements of a list that have an `id` go by it."""
    if isinstance(document, Mapping):
        pairs = [(str(key), value) for key, value in document.items()]
    elif isinstance(document, list) and document and isinstance(document[0], Mapping):
        pairs = [(str(each.get("id", index)), each) for index, each in enumerate(document)]
    else:
        return {path: document}
    leaves: dict[str, Any] = {}
    for name, value in pairs:
        leaves.update(flat(value, f"{path}.{name}" if path else name))
    return leaves


def _of_version(registry: Registry, name: str, version: str) -> Side:
    manifest = registry.manifest(version)
    run = registry.judgements.run_that_made(version)
    return Side(
        name,
        run,
        version,
        _params(registry, run),
        flat(manifest.metrics),
        flat(manifest.lineage),
        {file.path: file.sha256 for file in manifest.files},
    )


def _of_run(registry: Registry, name: str, record: RunRecord) -> Side:
    manifest = registry.manifest(record.version) if record.version else None
    return Side(
        name,
        record.id,
        record.version,
        _params(registry, record.id),
        flat(record.metrics),
        flat(manifest.lineage) if manifest else {},
        {file.path: file.sha256 for file in manifest.files} if manifest else {},
    )


def _params(registry: Registry, run: str) -> dict[str, Any]:
    if not run:
        return {}
    try:
        document = yaml.safe_load(registry.store.get(run_key(run, "params.yaml")))
    except ObjectMissing:
        return {}
    except yaml.YAMLError:
        raise TwinflowError(
            "The parameters of a run are damaged.",
            where=registry.store.address(run_key(run, "params.yaml")),
            fix="Compare other runs; the branch of the run still has them.",
        ) from None
    return flat(document)


def _change(a: Any, b: Any) -> float | None:
    numbers = [value for value in (a, b) if isinstance(value, int | float) and not isinstance(value, bool)]
    return float(b) - float(a) if len(numbers) == 2 else None
