"""Real services for the tests, started by the product's own code: one SeaweedFS and one Prefect a session."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from twinflow_core.local.seaweedfs import start_seaweedfs, stop_seaweedfs
from twinflow_core.local.services import Services, down, services_folder, up
from twinflow_core.registry.registry import Registry
from twinflow_core.registry.s3 import S3Connection, make_s3_client
from twinflow_core.registry.store import ObjectStore

REPOSITORY = Path(__file__).parent.parent
BUCKET = "twinflow"


def pytest_configure() -> None:
    """Keep the tests away from servers and state that the person who runs them works with."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "PREFECT_", "TWINFLOW_")):
            del os.environ[name]


@pytest.fixture(scope="session")
def service_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A root with params.yaml whose `.twinflow/services` are the session's; stopped at the end."""
    root = tmp_path_factory.mktemp("services")
    shutil.copy(REPOSITORY / "params.yaml", root)
    yield root
    down(root, print)


@pytest.fixture(scope="session")
def s3_connection(service_root: Path) -> S3Connection:
    """The session's real S3 server, as its admin, with the bucket `twinflow` in it."""
    return start_seaweedfs(services_folder(service_root), BUCKET, print)


@pytest.fixture(scope="session")
def services(service_root: Path, s3_connection: S3Connection) -> Services:
    """The session's S3 server and Prefect server; `services.environment()` is for child processes."""
    return up(service_root, print)


@pytest.fixture(scope="session")
def object_store(s3_connection: S3Connection) -> ObjectStore:
    """The session's bucket. Shared: work under `fresh_prefix`, or in a model of your own."""
    return ObjectStore(make_s3_client(s3_connection), BUCKET)


@pytest.fixture
def fresh_prefix() -> str:
    """A prefix in the bucket that no other test uses, ending in a slash."""
    return f"test-{uuid.uuid4().hex[:12]}/"


@pytest.fixture
def registry(object_store: ObjectStore) -> Registry:
    """The registry of a model that no other test uses, in the session's bucket."""
    return Registry(object_store, f"model-{uuid.uuid4().hex[:12]}")


@pytest.fixture
def fresh_bucket(s3_connection: S3Connection) -> Iterator[ObjectStore]:
    """A bucket of one test, for what takes a whole bucket (a run of the pipeline); removed afterwards."""
    store = ObjectStore(make_s3_client(s3_connection), f"test-{uuid.uuid4().hex[:12]}")
    store.ensure_bucket(create=True)
    yield store
    for info in list(store.list("")):
        store.delete(info.key)
    store.client.delete_bucket(Bucket=store.bucket)


@pytest.fixture
def own_seaweedfs(tmp_path: Path) -> Iterator[Path]:
    """A services' folder of one test, for what stops or kills the server; stopped afterwards if it runs."""
    folder = tmp_path / "services"
    folder.mkdir()
    yield folder
    stop_seaweedfs(folder, print)
