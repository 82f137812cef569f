from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from twinflow_core.errors import ExitCode, TwinflowError
from twinflow_core.local.loopback import free_ports
from twinflow_core.registry import store as store_module
from twinflow_core.registry.digest import digest_file
from twinflow_core.registry.faults import ObjectMissing, StoredObjectDamaged
from twinflow_core.registry.s3 import S3Connection, make_s3_client
from twinflow_core.registry.store import ObjectStore


def test_objects_come_back_and_are_listed_in_order(object_store: ObjectStore, fresh_prefix: str) -> None:
    for name in ("b", "a/2", "a/1"):
        assert object_store.put(fresh_prefix + name, name.encode())
    assert [info.key.removeprefix(fresh_prefix) for info in object_store.list(fresh_prefix)] == [
        "a/1",
        "a/2",
        "b",
    ]
    info = object_store.head(fresh_prefix + "a/1")
    assert info is not None
    assert info.size == 3
    object_store.delete(fresh_prefix + "b")
    assert object_store.head(fresh_prefix + "b") is None
    with pytest.raises(ObjectMissing, match="does not exist"):
        object_store.get(fresh_prefix + "b")


def test_only_the_first_conditional_write_wins(object_store: ObjectStore, fresh_prefix: str) -> None:
    key = fresh_prefix + "entry"
    assert object_store.put(key, b"mine", if_absent=True)
    assert not object_store.put(key, b"theirs", if_absent=True)
    assert object_store.get(key) == b"mine"


def test_a_write_repeated_after_its_own_success_has_won(object_store: ObjectStore, fresh_prefix: str) -> None:
    # What the SDK does after a timeout: the same request again, refused with 412 because of itself.
    key = fresh_prefix + "entry"
    assert object_store.put(key, b"nonce 1", if_absent=True)
    assert object_store.put(key, b"nonce 1", if_absent=True)


@pytest.mark.parametrize("size", [0, 3_000_000, 13_000_000])
def test_files_stream_both_ways(
    object_store: ObjectStore,
    fresh_prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
) -> None:
    monkeypatch.setattr(store_module, "SINGLE_PUT_BYTES", 5 << 20)
    monkeypatch.setattr(store_module, "PART_BYTES", 5 << 20)
    source = tmp_path / "source"
    source.write_bytes(os.urandom(size))
    digest = object_store.put_file(fresh_prefix + "file", source)
    assert digest == digest_file(source)
    object_store.verify(fresh_prefix + "file", digest)
    object_store.get_file(fresh_prefix + "file", tmp_path / "copy", digest)
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("damaged", [b"right bytez", b"right", b"right bytes and more"])
def test_a_damaged_object_never_becomes_a_file(
    object_store: ObjectStore, fresh_prefix: str, tmp_path: Path, damaged: bytes
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"right bytes")
    digest = object_store.put_file(fresh_prefix + "file", source)
    object_store.put(fresh_prefix + "file", damaged)
    target = tmp_path / "target" / "file"
    with pytest.raises(StoredObjectDamaged, match="damaged"):
        object_store.get_file(fresh_prefix + "file", target, digest)
    assert list(target.parent.iterdir()) == []
    with pytest.raises(StoredObjectDamaged, match="damaged"):
        object_store.verify(fresh_prefix + "file", digest)


def test_a_file_that_is_not_what_was_announced_is_refused_by_the_server(
    object_store: ObjectStore, fresh_prefix: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"before")
    digest = digest_file(source)
    source.write_bytes(b"after!")
    with pytest.raises(TwinflowError, match="changed while it was read"):
        object_store.put_file(fresh_prefix + "file", source, digest)
    assert object_store.head(fresh_prefix + "file") is None


def test_a_target_that_cannot_be_written_is_said_clearly(
    object_store: ObjectStore, fresh_prefix: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"bytes")
    digest = object_store.put_file(fresh_prefix + "file", source)
    with pytest.raises(TwinflowError, match="cannot be written"):
        object_store.get_file(fresh_prefix + "file", source / "below-a-file", digest)


@pytest.mark.parametrize(
    ("change", "variable"),
    [({"secret_key": "wrong"}, "AWS_SECRET_ACCESS_KEY"), ({"access_key": "nobody"}, "AWS_ACCESS_KEY_ID")],
)
def test_wrong_credentials_name_the_variable(
    s3_connection: S3Connection, object_store: ObjectStore, change: dict[str, str], variable: str
) -> None:
    store = ObjectStore(make_s3_client(replace(s3_connection, **change)), object_store.bucket)
    with pytest.raises(TwinflowError) as caught:
        store.ensure_bucket(create=False)
    assert variable in caught.value.fix
    assert caught.value.code == ExitCode.WRONG_INPUT


def test_a_dead_endpoint_is_infrastructure(s3_connection: S3Connection) -> None:
    nobody = replace(s3_connection, endpoint=f"http://127.0.0.1:{free_ports(1)[0]}")
    store = ObjectStore(make_s3_client(nobody), "any")
    for call in (
        lambda: store.put("key", b"", if_absent=True),
        lambda: store.ensure_bucket(create=True),
    ):
        with pytest.raises(TwinflowError, match="does not answer") as caught:
            call()
        assert caught.value.code == ExitCode.INFRASTRUCTURE
        assert nobody.endpoint in caught.value.where


def test_a_missing_bucket_is_made_only_where_that_is_asked(s3_connection: S3Connection) -> None:
    store = ObjectStore(make_s3_client(s3_connection), "not-yet-there")
    with pytest.raises(TwinflowError, match="bucket does not exist") as caught:
        store.ensure_bucket(create=False)
    assert caught.value.code == ExitCode.WRONG_INPUT
    with pytest.raises(TwinflowError, match="bucket does not exist"):
        store.put("key", b"")
    store.ensure_bucket(create=True)
    store.put("key", b"")
    store.delete("key")
    store.client.delete_bucket(Bucket=store.bucket)
