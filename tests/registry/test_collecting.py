"""A garbage collection beside publishes, promotions and other collections: nothing that was published is lost."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from twinflow_core.errors import InfrastructureError, TwinflowError
from twinflow_core.registry import collecting
from twinflow_core.registry.audit import audit_registry
from twinflow_core.registry.collecting import Sign
from twinflow_core.registry.digest import digest_file
from twinflow_core.registry.garbage import GUARD, collect, reached_versions
from twinflow_core.registry.manifest import describe_package
from twinflow_core.registry.registry import Registry

# Everything in the store is older than this.
NO_GUARD = timedelta(days=-1)
ROUNDS = 8


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    folder.mkdir()
    for name in ("model.onnx", "text.onnx"):
        (folder / name).write_text(name)
    return folder


def _orphan(registry: Registry, path: Path) -> str:
    """Leave a file in the store that no manifest names; gives its key."""
    digest = digest_file(path)
    key = registry.published.blob_key(digest.sha256)
    registry.store.put_file(key, path, digest)
    return key


def _decide(registry: Registry, package: Path, **other: object) -> str:
    """Decide about a version before it is published, so that something reaches it as soon as it is there."""
    version = describe_package(package, registry.model, {}, {})[0]
    told = {"candidate": version, "channel": "staging", "generation": 0, "outcome": "promote"}
    registry.record_decision({**told, **other})
    return version


@pytest.fixture
def publish_before_delete(
    registry: Registry, package: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Future[str]]:
    """Have the package published in the very moment between a collection's last look at a key and its deletion."""
    published: Future[str] = Future()
    real, put = registry.store.delete, registry.store.put
    pool = ThreadPoolExecutor(1)

    def arrange(wanted: str) -> Future[str]:
        def delete(key: str) -> None:
            if key == wanted:
                monkeypatch.setattr(registry.store, "delete", real)
                manifest_written: Future[None] = Future()

                def noticed(key: str, body: bytes, if_absent: bool = False) -> bool:
                    done = put(key, body, if_absent)
                    if key.endswith("/manifest.json") and not manifest_written.done():
                        manifest_written.set_result(None)
                    return done

                monkeypatch.setattr(registry.store, "put", noticed)
                running = pool.submit(registry.publish, package, {}, {})
                running.add_done_callback(lambda done: published.set_result(done.result()))
                manifest_written.result(timeout=30)
            real(key)

        monkeypatch.setattr(registry.store, "delete", delete)
        return published

    return arrange


def test_a_file_that_is_needed_again_in_the_last_moment_is_put_back(
    registry: Registry, package: Path, publish_before_delete: Callable[[str], Future[str]]
) -> None:
    key = _orphan(registry, package / "model.onnx")
    published = publish_before_delete(key)
    assert len(collect(registry, dry_run=False, guard=NO_GUARD).blobs) == 1
    version = published.result(timeout=30)
    assert registry.verify(version) == []


def test_a_manifest_that_is_published_again_in_the_last_moment_is_put_back(
    registry: Registry, package: Path, publish_before_delete: Callable[[str], Future[str]]
) -> None:
    version = registry.publish(package, {}, {})
    published = publish_before_delete(registry.published.manifest_key(version))
    assert collect(registry, dry_run=False, guard=NO_GUARD).set_aside == [version]
    assert published.result(timeout=30) == version
    assert registry.verify(version) == []


def test_publishes_and_collections_that_race_lose_nothing(registry: Registry, package: Path) -> None:
    chance = random.Random(4)
    versions = []
    with ThreadPoolExecutor(1) as pool:
        for number in range(ROUNDS):
            (package / "model.onnx").write_text(f"weights {number}")
            _orphan(registry, package / "model.onnx")
            versions.append(_decide(registry, package))
            publishing = pool.submit(registry.publish, package, {}, {})
            time.sleep(chance.uniform(0, 0.1))
            collect(registry, dry_run=False, guard=NO_GUARD)
            assert publishing.result() == versions[-1]
    collect(registry, dry_run=False, guard=NO_GUARD)
    assert registry.versions() == sorted(versions)
    assert audit_registry(registry).problems == []


def test_there_is_one_collection_at_a_time_and_a_dead_one_is_overtaken(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Sign(registry.store, registry.prefix)
    with first.raised():
        first.require()
        with pytest.raises(TwinflowError, match="Another garbage collection"):
            collect(registry, dry_run=False)
        collect(registry, dry_run=True)
        monkeypatch.setattr(collecting, "DEAD_AFTER", timedelta(seconds=-1))
        second = Sign(registry.store, registry.prefix)
        with second.raised():
            second.require()
            with pytest.raises(InfrastructureError, match="overtaken"):
                first.require()
    assert registry.store.head(first.key) is None


def test_a_collection_that_took_too_long_deletes_nothing_more(
    registry: Registry, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = _orphan(registry, package / "model.onnx")
    monkeypatch.setattr(collecting, "LEASE", timedelta(seconds=-1))
    with pytest.raises(InfrastructureError, match="took too long"):
        collect(registry, dry_run=False, guard=NO_GUARD)
    assert registry.store.head(key) is not None
    assert registry.store.head(f"{registry.prefix}/collecting.json") is None


def test_a_publish_does_not_wait_for_ever(
    registry: Registry, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "WAIT_SECONDS", 0.0)
    with (
        Sign(registry.store, registry.prefix).raised(),
        pytest.raises(InfrastructureError, match="keeps this publish waiting"),
    ):
        registry.publish(package, {}, {})
    # What died long ago keeps nobody.
    registry.store.put(f"{registry.prefix}/collecting.json", b"of a dead one")
    monkeypatch.setattr(collecting, "DEAD_AFTER", timedelta(seconds=-1))
    assert registry.verify(registry.publish(package, {}, {})) == []


def test_what_expired_just_now_may_still_be_promoted_by_a_slower_clock(
    registry: Registry, package: Path
) -> None:
    now = datetime.now(UTC)
    version = _decide(registry, package, expires=(now - timedelta(hours=1)).isoformat())
    assert reached_versions(registry, now, GUARD) == {version}
    assert reached_versions(registry, now + GUARD, GUARD) == frozenset()
