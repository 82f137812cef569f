"""A process that publishes and promotes, killed outright at a chosen write: nothing half made is ever served."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fault_proxy import FaultProxy, Hangup, Request, Response
from tests.pipeline_clone import REPOSITORY
from twinflow_core.registry.registry import Registry
from twinflow_core.registry.s3 import S3Connection

PUBLISH_AND_PROMOTE = """
import sys
from pathlib import Path
from twinflow_core.registry.registry import Registry
from twinflow_core.registry.s3 import connection_from_environment, make_s3_client
from twinflow_core.registry.store import ObjectStore

model, package = sys.argv[1:]
registry = Registry(ObjectStore(make_s3_client(connection_from_environment()), "twinflow"), model)
version = registry.publish(Path(package), {}, {})
head = registry.head("staging")
if head.version != version:
    decision = registry.record_decision(
        {"candidate": version, "channel": "staging", "generation": head.generation, "outcome": "promote"}
    )
    registry.promote("staging", version, decision, head.generation, "somebody", "because")
"""


def start(connection: S3Connection, endpoint: str, model: str, package: Path) -> subprocess.Popen[bytes]:
    environment = {**connection.environment(), "AWS_ENDPOINT_URL_S3": endpoint, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, "-c", PUBLISH_AND_PROMOTE, model, str(package)], env={**os.environ, **environment}
    )


@pytest.mark.parametrize(
    ("place", "when", "generation"),
    [
        ("/blobs/", "within", 0),
        ("/versions/", "before", 0),
        ("/decisions/", "after", 0),
        ("/log/", "before", 0),
        ("/log/", "after", 1),
    ],
)
def test_a_kill_at_any_write_leaves_nothing_or_all_and_the_next_run_finishes(
    s3_connection: S3Connection, registry: Registry, tmp_path: Path, place: str, when: str, generation: int
) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package/model.onnx").write_bytes(random.Random(9).randbytes(300_000))
    with FaultProxy(s3_connection.endpoint) as proxy:
        process = start(s3_connection, proxy.endpoint, registry.model, tmp_path / "package")

        def kill(request: Request) -> Response:
            if request.method != "PUT" or place not in request.key:
                return request.forward()
            if when == "after":
                request.forward()
            elif when == "within":
                request.read_half()
            process.send_signal(signal.SIGKILL)
            raise Hangup

        proxy.fault = kill
        assert process.wait(timeout=120) == -signal.SIGKILL
    head = registry.head("staging")
    assert head.generation == generation
    for version in {*registry.versions(), *([head.version] if head.version else [])}:
        assert registry.verify(version) == []
    again = start(s3_connection, s3_connection.endpoint, registry.model, tmp_path / "package")
    assert again.wait(timeout=120) == 0
    (entry,) = registry.history("staging")
    assert registry.verify(str(entry.version)) == []
