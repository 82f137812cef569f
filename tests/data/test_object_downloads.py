"""Threads that download: few objects wait for them, the first error ends all, an interrupt stops them at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fault_proxy import FaultProxy, Request, Response, refuse, slow
from twinflow_core.data.object_downloads import download_all
from twinflow_core.errors import ExitCode, TwinflowError
from twinflow_core.registry.faults import ObjectMissing
from twinflow_core.registry.s3 import S3Connection, make_s3_client
from twinflow_core.registry.store import ObjectStore

THREADS = 2
COUNT = 30
BUSY_SECONDS = 0.2


def put_small(store: ObjectStore, prefix: str) -> list[str]:
    """Thirty objects; their keys."""
    keys = [f"{prefix}{number:02d}" for number in range(COUNT)]
    for key in keys:
        store.put(key, key.encode())
    return keys


def no_thread_is_left() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name.startswith("twinflow-download")]


def test_few_objects_wait_and_all_arrive(
    tmp_path: Path, object_store: ObjectStore, fresh_prefix: str
) -> None:
    keys, waiting = put_small(object_store, fresh_prefix), []

    def wanted() -> Iterator[tuple[str, Path]]:
        for taken, key in enumerate(keys):
            waiting.append(taken - sum(path.is_file() for path in tmp_path.rglob("*")))
            yield key, tmp_path / key

    download_all(object_store.client, object_store.bucket, wanted(), THREADS)
    assert {key: (tmp_path / key).read_text() for key in keys} == {key: key for key in keys}
    assert max(waiting) <= 2 * THREADS


def test_the_first_error_ends_all(
    tmp_path: Path, object_store: ObjectStore, s3_connection: S3Connection, fresh_prefix: str
) -> None:
    keys, asked = put_small(object_store, fresh_prefix), []

    def first_is_gone(request: Request) -> Response:
        asked.append(request.key)
        return (refuse(404, "NoSuchKey") if request.key == keys[0] else slow(BUSY_SECONDS))(request)

    with FaultProxy(s3_connection.endpoint) as proxy:
        proxy.fault = first_is_gone
        client = make_s3_client(replace(s3_connection, endpoint=proxy.endpoint))
        wanted = ((key, tmp_path / str(number)) for number, key in enumerate(keys))
        with pytest.raises(ObjectMissing, match=keys[0]):
            download_all(client, object_store.bucket, wanted, THREADS)
        assert no_thread_is_left()
    assert len(asked) < COUNT / 2
    assert next(wanted, None) is not None


def test_an_interrupt_stops_an_object_on_its_way(
    tmp_path: Path, object_store: ObjectStore, s3_connection: S3Connection, fresh_prefix: str
) -> None:
    key = f"{fresh_prefix}large"
    object_store.put(key, bytes(3 << 20))

    def wanted() -> Iterator[tuple[str, Path]]:
        yield key, tmp_path / "large"
        raise KeyboardInterrupt

    with FaultProxy(s3_connection.endpoint) as proxy:
        proxy.fault = slow(BUSY_SECONDS)
        client = make_s3_client(replace(s3_connection, endpoint=proxy.endpoint))
        with pytest.raises(KeyboardInterrupt):
            download_all(client, object_store.bucket, wanted(), THREADS)
        assert no_thread_is_left()
    assert (tmp_path / "large").stat().st_size < 3 << 20


@pytest.mark.parametrize("name", ["x" * 300, "file/inside"], ids=["too long", "below a file"])
def test_a_name_that_no_file_can_have_is_one_message(
    name: str, tmp_path: Path, object_store: ObjectStore, fresh_prefix: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    object_store.put(f"{fresh_prefix}object", b"")
    wanted = iter([(f"{fresh_prefix}object", tmp_path / name)])
    with pytest.raises(TwinflowError, match="cannot be the name of a file") as caught:
        download_all(object_store.client, object_store.bucket, wanted, THREADS)
    assert caught.value.code == ExitCode.WRONG_INPUT
    assert fresh_prefix in caught.value.where
