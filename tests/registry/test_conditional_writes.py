from __future__ import annotations

from typing import Any

import pytest

from twinflow_core.errors import TwinflowError
from twinflow_core.registry import conditional_writes
from twinflow_core.registry.conditional_writes import probe_conditional_writes, require_conditional_writes
from twinflow_core.registry.s3 import S3Connection, make_s3_client
from twinflow_core.registry.store import ObjectStore


def store_that_ignores_conditions(connection: S3Connection, bucket: str) -> ObjectStore:
    """The real server as one that does not know If-None-Match: the header never reaches it."""
    client = make_s3_client(connection)

    def strip(params: dict[str, Any], **_: object) -> None:
        params["headers"].pop("If-None-Match", None)

    client.meta.events.register("before-call.s3.PutObject", strip)
    return ObjectStore(client, bucket)


@pytest.fixture
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditional_writes, "_known", {})


@pytest.mark.usefixtures("_forget")
def test_the_embedded_server_passes_and_is_left_clean(object_store: ObjectStore) -> None:
    assert probe_conditional_writes(object_store).work
    assert list(object_store.list(conditional_writes.PROBE_PREFIX)) == []


@pytest.mark.usefixtures("_forget")
def test_a_server_that_ignores_the_condition_is_refused(
    s3_connection: S3Connection, object_store: ObjectStore
) -> None:
    store = store_that_ignores_conditions(s3_connection, object_store.bucket)
    assert not probe_conditional_writes(store).work
    with pytest.raises(TwinflowError, match="cannot hold a registry: an existing object was overwritten"):
        require_conditional_writes(store)
