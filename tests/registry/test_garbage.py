from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinflow_core.registry import versions as versions_module
from twinflow_core.registry.audit import audit_registry
from twinflow_core.registry.faults import StoredObjectDamaged
from twinflow_core.registry.garbage import GUARD, Survey, collect, plan
from twinflow_core.registry.registry import Registry
from twinflow_core.registry.store import ObjectInfo
from twinflow_core.registry.versions import REFRESH_AFTER

WHO = {"actor": "ada", "reason": "because"}
# Everything in the store is older than this.
NO_GUARD = timedelta(days=-1)
NOW = datetime(2026, 1, 10, tzinfo=UTC)


def _publish(registry: Registry, folder: Path, weights: str) -> str:
    (folder / weights).mkdir(exist_ok=True)
    (folder / weights / "model.onnx").write_text(weights)
    (folder / weights / "text.onnx").write_text("shared")
    return registry.publish(folder / weights, {}, {})


def _decide(registry: Registry, version: str, **other: object) -> str:
    generation = registry.head("staging").generation
    told = {"candidate": version, "channel": "staging", "generation": generation, "outcome": "promote"}
    return registry.record_decision({**told, **other})


def _promote(registry: Registry, version: str) -> None:
    decision = _decide(registry, version, expires="2099-01-01T00:00:00Z")
    registry.promote("staging", version, decision, registry.head("staging").generation, **WHO)


def test_what_a_log_or_an_open_decision_reaches_stays(registry: Registry, tmp_path: Path) -> None:
    past = "2026-01-01T00:00:00Z"
    served, serving, judged, approved, expired, rejected, unjudged = (
        _publish(registry, tmp_path, name) for name in ("one", "two", "three", "four", "five", "six", "seven")
    )
    _promote(registry, served)
    _promote(registry, serving)
    _decide(registry, judged, outcome="needs-approval")
    _decide(registry, approved)
    registry.approve("staging", approved, **WHO)
    _decide(registry, expired, expires=past)
    _decide(registry, rejected, outcome="reject")
    young = collect(registry, dry_run=False)
    assert (young.set_aside, young.blobs) == ([], [])
    told = collect(registry, dry_run=True, guard=NO_GUARD)
    assert told.set_aside == sorted([expired, rejected, unjudged])
    assert told.kept == sorted([served, serving, judged, approved])
    assert told.later_bytes == sum(len(name) for name in ("five", "six", "seven"))
    assert len(registry.versions()) == 7
    assert collect(registry, dry_run=False, guard=NO_GUARD) == told
    assert registry.versions() == told.kept
    assert audit_registry(registry).problems == []


def test_bytes_go_a_collection_later_and_publishing_again_heals(registry: Registry, tmp_path: Path) -> None:
    version, other = (_publish(registry, tmp_path, name) for name in ("one", "two"))
    assert collect(registry, dry_run=False, guard=NO_GUARD).blobs == []
    assert registry.versions() == []
    # Its blobs are all there still: the manifest alone brings it back.
    assert _publish(registry, tmp_path, "two") == other
    gone = collect(registry, dry_run=False, guard=NO_GUARD)
    assert (gone.forgotten, gone.set_aside) == (sorted([version, other]), [other])
    assert gone.bytes == len("one")
    _publish(registry, tmp_path, "one")
    assert registry.verify(version) == []


def test_a_version_promoted_while_it_was_collected_comes_back(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = _publish(registry, tmp_path, "one")
    real = registry.store.delete

    def promote_first(key: str) -> None:
        """Somebody decides and promotes between the survey and the first deletion."""
        monkeypatch.setattr(registry.store, "delete", real)
        _promote(registry, version)
        real(key)

    monkeypatch.setattr(registry.store, "delete", promote_first)
    done = collect(registry, dry_run=False, guard=NO_GUARD)
    assert (done.kept, done.set_aside) == ([version], [])
    assert registry.head("staging").version == version
    assert audit_registry(registry).problems == []


def test_nothing_goes_while_a_log_cannot_be_read(registry: Registry, tmp_path: Path) -> None:
    for name in ("one", "two"):
        _promote(registry, _publish(registry, tmp_path, name))
    _publish(registry, tmp_path, "three")
    log = [info.key for info in registry.store.list(f"{registry.prefix}/channels/staging/log/")]
    registry.store.delete(log[0])
    with pytest.raises(StoredObjectDamaged, match="gap"):
        collect(registry, dry_run=False, guard=NO_GUARD)
    assert len(registry.versions()) == 3


def test_a_publish_writes_old_blobs_again(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written() -> list[datetime]:
        return [info.modified for info in registry.store.list(f"{registry.prefix}/blobs/")]

    _publish(registry, tmp_path, "one")
    before = written()
    _publish(registry, tmp_path, "one")
    assert written() == before
    # The store tells the time of a write in whole seconds.
    time.sleep(1.1)
    monkeypatch.setattr(versions_module, "REFRESH_AFTER", timedelta(days=-1))
    _publish(registry, tmp_path, "one")
    assert all(now > then for now, then in zip(written(), before, strict=True))
    assert 2 * REFRESH_AFTER <= GUARD


def _info(hours_old: float) -> ObjectInfo:
    return ObjectInfo("key", 1, NOW - timedelta(hours=hours_old))


HOURS = st.floats(0, 96)
NAMES = st.sampled_from("ABCDE")
BLOBS = st.sampled_from("abcdef")


@settings(deadline=None)
@given(
    manifests=st.dictionaries(NAMES, HOURS),
    aside=st.dictionaries(NAMES, HOURS),
    blobs=st.dictionaries(BLOBS, HOURS),
    files=st.fixed_dictionaries({name: st.frozensets(BLOBS) for name in "ABCDE"}),
    reached=st.frozensets(NAMES),
)
def test_no_plan_takes_what_is_reached_or_young(
    manifests: dict[str, float],
    aside: dict[str, float],
    blobs: dict[str, float],
    files: dict[str, frozenset[str]],
    reached: frozenset[str],
) -> None:
    found = Survey(
        NOW,
        reached,
        {name: _info(age) for name, age in manifests.items()},
        {name: _info(age) for name, age in aside.items()},
        {name: _info(age) for name, age in blobs.items()},
        files,
    )
    chosen = plan(found, GUARD)
    guard = GUARD / timedelta(hours=1)
    assert not reached.intersection(chosen.set_aside)
    assert all(manifests[version] > guard for version in chosen.set_aside)
    assert all(blobs[blob] > guard for blob in chosen.blobs)
    # Whatever has a manifest after this, or had one within the guard, keeps every blob.
    safe = {*manifests, *(name for name in aside if name in reached or aside[name] <= guard)}
    assert not set(chosen.blobs) & {blob for version in safe for blob in files[version]}
    # Nothing that may go is left for ever: a guard later, all that nothing reaches is gone.
    later = replace(
        found,
        now=NOW + 5 * GUARD,
        manifests={name: info for name, info in found.manifests.items() if name not in chosen.set_aside},
        aside={name: _info(0) for name in chosen.set_aside},
    )
    left = found.blobs.keys() - set(plan(later, GUARD).blobs)
    assert left <= {blob for name in manifests if name in reached for blob in files[name]} | {
        blob for name in later.manifests for blob in files[name]
    }
