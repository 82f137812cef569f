"""A bucket as a source: what is listed of it, and what every failing of server, names and secrets leaves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fault_proxy import Fault, FaultProxy, Request, Response, only, refuse
from twinflow_core.data.s3_source import fetch_source, listing
from twinflow_core.data.whole_folder import whole_folder
from twinflow_core.errors import InfrastructureError, TwinflowError
from twinflow_core.registry.faults import ObjectMissing
from twinflow_core.registry.s3 import S3Connection
from twinflow_core.registry.store import ObjectStore

COUNT = 12
BODY = b"a picture"


@pytest.fixture(scope="module")
def source(object_store: ObjectStore) -> Iterator[str]:
    """The address of a prefix with twelve small objects."""
    names = [f"source-of-test/{number:02d}.png" for number in range(COUNT)]
    for name in names:
        object_store.put(name, BODY)
    yield f"s3://{object_store.bucket}/source-of-test"
    for name in names:
        object_store.delete(name)


@pytest.fixture
def proxy(s3_connection: S3Connection, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """Stands before the server that the environment names."""
    with FaultProxy(s3_connection.endpoint) as proxy:
        for name, value in replace(s3_connection, endpoint=proxy.endpoint).environment().items():
            monkeypatch.setenv(name, value)
        yield proxy


def listed_otherwise(change: Callable[[bytes], bytes]) -> Fault:
    """Answer a listing with another text."""

    def fault(request: Request) -> Response:
        answer = request.forward()
        return answer if request.key else replace(answer, body=change(answer.body))

    return fault


def end_early(request: Request) -> Response:
    """Say how long the object is, send half of it, and end the connection."""
    answer = request.forward()
    headers = {**answer.headers, "Content-Length": str(len(answer.body)), "Connection": "close"}
    return Response(answer.status, headers, answer.body[: len(answer.body) // 2])


def first_object_twice(listing: bytes) -> bytes:
    """The first one as it was before it was written again, and as it is."""
    first = re.findall(rb"<Contents>.*?</Contents>", listing, re.DOTALL)[0]
    before = first.replace(b"<Size>", b"<Size>1")
    return listing.replace(first, before + first)


def test_an_object_that_is_listed_twice_counts_as_listed_last(source: str, proxy: FaultProxy) -> None:
    once = list(listing(source))
    assert [name for name, _ in once] == [f"{number:02d}.png" for number in range(COUNT)]
    assert all(state.endswith(f" {len(BODY)}") for _, state in once)
    proxy.fault = listed_otherwise(first_object_twice)
    assert list(listing(source)) == once


def of_one_object(request: Request) -> bool:
    return request.key.endswith("07.png")


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        (only(of_one_object, end_early), InfrastructureError, "does not answer"),
        (only(of_one_object, refuse(404, "NoSuchKey")), ObjectMissing, "07.png"),
        (listed_otherwise(lambda text: text.replace(b"07", b"/07")), TwinflowError, "leads out.*'/07.png'"),
    ],
    ids=["short", "gone", "leading out"],
)
def test_a_fetch_that_fails_leaves_what_was_there(
    tmp_path: Path, source: str, proxy: FaultProxy, fault: Fault, error: type[TwinflowError], says: str
) -> None:
    target = tmp_path / "in/raw"
    target.mkdir(parents=True)
    (target / "kept.png").write_bytes(b"kept")
    proxy.fault = fault
    with pytest.raises(error, match=says) as caught, whole_folder(target) as folder:
        fetch_source(source, None, folder)
    assert type(caught.value) is error
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["kept.png"]


def test_a_wrong_secret_is_told(
    tmp_path: Path, source: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(TwinflowError, match="refuses the credentials") as caught:
        fetch_source(source, None, tmp_path)
    assert "AWS_SECRET_ACCESS_KEY" in caught.value.fix
    assert not list(tmp_path.iterdir())
