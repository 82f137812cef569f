"""Real services for the tests, started by the product's own code: one SeaweedFS and one Prefect a session."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from twinflow_core.data.whole_folder import whole_folder
from twinflow_core.local.seaweedfs import start_seaweedfs, stop_seaweedfs
from twinflow_core.local.services import Services, down, services_folder, up
from twinflow_core.registry.registry import Registry
from twinflow_core.registry.s3 import S3Connection, make_s3_client
from twinflow_core.registry.store import ObjectStore

REPOSITORY = Path(__file__).parent.parent
BUCKET = "twinflow"


# Tells xdist's workers where the services are that they share.
SHARED_ROOT = "TEST_SERVICE_ROOT"


def pytest_configure(config: pytest.Config) -> None:
    """Keep the tests away from servers and state that the person who runs them works with."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "PREFECT_", "TWINFLOW_")):
            del os.environ[name]
    if not _is_worker(config):
        root = Path(tempfile.mkdtemp(prefix="twinflow-test-"))
        shutil.copy(REPOSITORY / "params.yaml", root)
        os.environ[SHARED_ROOT] = str(root)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the session's services, once all workers are done."""
    if not _is_worker(config):
        root = Path(os.environ[SHARED_ROOT])
        down(root, print)
        shutil.rmtree(root)


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


@pytest.fixture(autouse=True)
def same_weights_in_any_order() -> None:
    """Random weights that a test draws without a seed do not depend on the tests before it."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def service_root() -> Path:
    """A root with params.yaml whose `.twinflow/services` are the session's; stopped at its end."""
    return Path(os.environ[SHARED_ROOT])


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


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a real SD3 pipeline with random weights, see tests/tiny_pipeline.py."""
    from tests.tiny_pipeline import build_tiny_pipeline

    return build_tiny_pipeline(tmp_path_factory.mktemp("tiny") / "pipeline")


@pytest.fixture(scope="session")
def sized_package(service_root: Path, tiny_pipeline: Path) -> Path:
    """`tiny_pipeline` exported for NFE 1 and 2 at 32x32 and 64x32: most of a minute, so all workers share one."""

    def build(package: Path) -> None:
        from twinflow_core.backbones.loading import load_backbone
        from twinflow_core.export.package import build_package
        from twinflow_core.image_size import ImageSize

        build_package(
            load_backbone(tiny_pipeline), package, steps=(1, 2), opset=20, sizes=[ImageSize(64, 32)]
        )

    return _made_once(service_root / "sized_package", build)


@pytest.fixture(scope="session")
def tiny_package(service_root: Path, tiny_pipeline: Path, sized_package: Path) -> Path:
    """The same at 32x32 alone: `sized_package` without the graphs of the other size. That an export of one size
    gives these very bytes is what the export stage's test finds."""

    def build(package: Path) -> None:
        from twinflow_core.backbones.loading import load_backbone
        from twinflow_core.export.package import describe_and_measure

        unlike = shutil.ignore_patterns("nfe*_*x*", "manifest.json", "parity.json")
        shutil.copytree(sized_package, package, ignore=unlike, dirs_exist_ok=True)
        describe_and_measure(load_backbone(tiny_pipeline), package, (1, 2), 20)

    return _made_once(service_root / "tiny_package", build)


def _made_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """A folder that the first worker makes; the others wait for it. Nobody may change what lies in it."""
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            with whole_folder(folder) as partial:
                build(partial)
    return folder
