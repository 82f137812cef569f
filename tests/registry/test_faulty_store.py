"""Promotion over a store that fails: refused or completed, never both; nothing lost, and a message that helps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fault_proxy import (
    Fault,
    FaultProxy,
    Request,
    Response,
    die_in_upload,
    fail_after_success,
    flip_a_byte,
    hang_up,
    hang_up_after_success,
    healthy,
    ignore_conditions,
    only,
    refuse,
    slow,
    truncate,
)
from twinflow_core.errors import ExitCode, TwinflowError
from twinflow_core.registry import conditional_writes, s3, store
from twinflow_core.registry.channel import Entry
from twinflow_core.registry.registry import Registry
from twinflow_core.registry.s3 import S3Connection, make_s3_client
from twinflow_core.registry.store import ObjectStore

WHO = {"actor": "somebody", "reason": "because"}


@pytest.fixture
def proxy(s3_connection: S3Connection, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    monkeypatch.setattr(s3, "READ_SECONDS", 0.7)
    monkeypatch.setattr(s3, "ATTEMPTS", 2)
    monkeypatch.setattr(store, "CONDITIONAL_ATTEMPTS", 3)
    monkeypatch.setattr(conditional_writes, "_known", {})
    with FaultProxy(s3_connection.endpoint) as proxy:
        yield proxy


@pytest.fixture
def faulty(proxy: FaultProxy, s3_connection: S3Connection, registry: Registry) -> Registry:
    """The model's registry as one reaches it through the proxy; `registry` is the way past it."""
    client = make_s3_client(replace(s3_connection, endpoint=proxy.endpoint))
    return Registry(ObjectStore(client, registry.store.bucket), registry.model)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(bytes(range(256)) * 2000)
    (folder / "manifest.json").write_bytes(b"{}")
    return folder


def publish_and_promote(registry: Registry, package: Path) -> Entry:
    version = registry.publish(package, {}, {"score": 1.0})
    generation = registry.head("staging").generation
    decision = registry.record_decision(
        {"candidate": version, "channel": "staging", "generation": generation, "outcome": "promote"}
    )
    return registry.promote("staging", version, decision, generation, **WHO)


def is_commit(request: Request) -> bool:
    return request.method == "PUT" and "/log/" in request.key


def is_upload(request: Request) -> bool:
    return request.method == "PUT" and "/blobs/" in request.key


@pytest.mark.parametrize(
    "fault",
    [
        only(is_commit, fail_after_success(412, "PreconditionFailed"), times=1),
        only(is_commit, fail_after_success(500, "InternalError"), times=1),
        only(is_commit, fail_after_success(503, "SlowDown"), times=1),
        only(is_commit, hang_up_after_success, times=1),
        only(is_commit, hang_up, times=1),
        only(is_commit, refuse(409, "ConditionalRequestConflict"), times=1),
        only(is_commit, refuse(503, "SlowDown"), times=1),
        only(is_upload, die_in_upload, times=1),
        only(is_upload, fail_after_success(500, "InternalError"), times=1),
        slow(0.02),
    ],
)
def test_a_passing_fault_is_survived_with_one_entry(
    proxy: FaultProxy, faulty: Registry, registry: Registry, package: Path, fault: Fault
) -> None:
    proxy.fault = fault
    entry = publish_and_promote(faulty, package)
    assert registry.history("staging") == [entry]
    assert registry.verify(str(entry.version)) == []


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (hang_up, "does not answer"),
        (only(is_upload, die_in_upload), "does not answer"),
        (only(is_upload, slow(1)), "does not answer"),
        (refuse(500, "InternalError"), "failed"),
        (refuse(503, "SlowDown"), "failed"),
        (only(is_commit, refuse(503, "SlowDown")), "neither accepted nor overtaken"),
        (flip_a_byte, "damaged"),
        (truncate, "damaged"),
    ],
)
def test_a_lasting_fault_refuses_with_a_message_and_the_next_attempt_completes(
    proxy: FaultProxy, faulty: Registry, registry: Registry, package: Path, fault: Fault, says: str
) -> None:
    proxy.fault = fault
    with pytest.raises(TwinflowError, match=says) as caught:
        publish_and_promote(faulty, package)
    assert caught.value.code == ExitCode.INFRASTRUCTURE
    assert caught.value.where
    assert caught.value.fix
    assert registry.history("staging") == []
    proxy.fault = healthy
    entry = publish_and_promote(faulty, package)
    assert registry.history("staging") == [entry]
    assert registry.verify(str(entry.version)) == []


def test_a_store_that_dies_at_the_commit_says_that_the_outcome_is_unknown_and_repeating_is_safe(
    proxy: FaultProxy, faulty: Registry, registry: Registry, package: Path
) -> None:
    version = faulty.publish(package, {}, {})
    document = {"candidate": version, "channel": "staging", "generation": 0, "outcome": "promote"}
    decision = faulty.record_decision(document)

    def dies(request: Request) -> Response:
        if is_commit(request):
            request.forward()
            proxy.fault = hang_up
        elif proxy.fault is not hang_up:
            return request.forward()
        return hang_up(request)

    proxy.fault = dies
    with pytest.raises(TwinflowError, match="not known") as caught:
        faulty.promote("staging", version, decision, 0, **WHO)
    assert caught.value.code == ExitCode.INFRASTRUCTURE
    assert "twinflow history" in caught.value.fix
    proxy.fault = healthy
    again = faulty.promote("staging", version, decision, 0, **WHO)
    assert registry.history("staging") == [again]


def test_a_store_that_ignores_conditions_promotes_nothing(
    proxy: FaultProxy, faulty: Registry, registry: Registry, package: Path
) -> None:
    proxy.fault = ignore_conditions(registry.store.put)
    with pytest.raises(TwinflowError, match="cannot hold a registry") as caught:
        publish_and_promote(faulty, package)
    assert caught.value.code == ExitCode.WRONG_INPUT
    assert registry.history("staging") == []


def test_a_lost_last_entry_is_no_invitation_to_write_it_again(registry: Registry, package: Path) -> None:
    entry = publish_and_promote(registry, package)
    key = f"registry/{registry.model}/channels/staging/log/{entry.generation:020d}.json"
    kept = registry.store.get(key)
    registry.store.delete(key)
    (package / "model.onnx").write_bytes(b"another")
    with pytest.raises(TwinflowError, match="lost"):
        publish_and_promote(registry, package)
    assert registry.store.head(key) is None
    registry.store.put(key, kept)
    assert publish_and_promote(registry, package).generation == 2


def test_an_entry_lost_before_others_stops_promotion_even_with_a_stale_pointer(
    registry: Registry, package: Path
) -> None:
    pointer = f"registry/{registry.model}/channels/staging/champion.json"
    stale = b""
    for weights in (b"one", b"two", b"three"):
        (package / "model.onnx").write_bytes(weights)
        publish_and_promote(registry, package)
        stale = stale or registry.store.get(pointer)
    registry.store.put(pointer, stale)
    lost = f"registry/{registry.model}/channels/staging/log/{2:020d}.json"
    registry.store.delete(lost)
    (package / "model.onnx").write_bytes(b"four")
    with pytest.raises(TwinflowError, match="lost"):
        publish_and_promote(registry, package)
    assert registry.store.head(lost) is None
