"""Whatever lies in the bucket where a record should lie: the record, or one error that says so."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twinflow_core.errors import TwinflowError
from twinflow_core.registry.channel import Channel, Entry
from twinflow_core.registry.faults import StoredObjectDamaged
from twinflow_core.registry.manifest import canonical_json, read_manifest
from twinflow_core.registry.registry import Registry
from twinflow_core.run_record import parse_record

DEEP = b"[" * 5000
HUGE_NUMBER = b'{"generation":' + b"9" * 5000 + b"}"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
ENTRY: dict[str, object] = {
    "generation": 1,
    "action": "promote",
    "version": "a" * 64,
    "previous": None,
    "held": False,
    "decision": "decision",
    "actor": "somebody",
    "reason": "because",
    "at": datetime(2026, 1, 1, tzinfo=UTC).isoformat(),
    "nonce": "nonce",
}
# Bytes, any JSON, and a right entry with one wrong value: what a broken or hostile writer leaves.
DOCUMENTS = st.one_of(
    st.sampled_from([DEEP, HUGE_NUMBER, b"", b"\xff\xfe", b"null"]),
    st.binary(max_size=60),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.builds(
        lambda key, value: json.dumps({**ENTRY, key: value}).encode(), st.sampled_from([*ENTRY, "new"]), JSON
    ),
)
few_and_slow = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def channel(registry: Registry) -> Channel:
    return Channel(registry.store, f"registry/{registry.model}/channels/staging")


@few_and_slow
@given(DOCUMENTS)
def test_any_log_entry_is_read_or_called_damaged(channel: Channel, document: bytes) -> None:
    channel.store.put(channel._key(1), document)
    for read in (channel.head, lambda: channel.history()[-1]):
        with suppress(StoredObjectDamaged):
            assert isinstance(read(), Entry)


@few_and_slow
@given(DOCUMENTS)
def test_any_pointer_leads_to_the_head(channel: Channel, document: bytes) -> None:
    channel.store.put(channel._key(1), canonical_json(ENTRY))
    channel.store.put(f"{channel.prefix}/champion.json", document)
    head = channel.head()
    assert head is not None
    assert head.generation == 1


@few_and_slow
@given(DOCUMENTS)
def test_any_decision_is_read_or_called_damaged(registry: Registry, document: bytes) -> None:
    registry.store.put(f"registry/{registry.model}/decisions/x.json", document)
    with suppress(StoredObjectDamaged):
        assert isinstance(registry.decision("x"), dict)
    with pytest.raises(TwinflowError):
        registry.promote("staging", "a" * 64, "x", 0, "somebody", "because")


@given(DOCUMENTS)
def test_any_manifest_is_called_damaged(document: bytes) -> None:
    with pytest.raises(StoredObjectDamaged):
        read_manifest("0" * 64, document, "here")


RUN: dict[str, object] = {"id": "20260101-000000-abcd", "state": "promoted", "finished": "x", "stages": []}


@given(
    DOCUMENTS
    | st.builds(
        lambda key, value: json.dumps({**RUN, key: value}).encode(),
        st.sampled_from([*RUN, "started", "error", "new"]),
        JSON,
    )
)
def test_any_run_record_is_read_or_called_damaged(document: bytes) -> None:
    with suppress(TwinflowError):
        record = parse_record(document, "here")
        # What listings sort and print.
        told = (record.id, record.state, record.started, record.finished)
        assert all(isinstance(value, str) for value in told)
        assert int(record.exit_code) in range(4)
