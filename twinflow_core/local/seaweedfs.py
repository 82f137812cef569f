"""The embedded S3 server: SeaweedFS (`weed mini`) on loopback, its data in the checkout's state folder.

Its filer port takes writes without credentials, which is why nothing of it ever listens beyond loopback.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from twinflow_core.errors import InfrastructureError, TwinflowError
from twinflow_core.local.credentials import embedded_identities, server_configuration
from twinflow_core.local.embedded import (
    Recipe,
    Running,
    Say,
    ensure_running,
    ensure_stopped,
    read_record,
    service_lock,
    write_private,
)
from twinflow_core.local.loopback import HOST, read_url
from twinflow_core.registry.s3 import S3Connection, make_s3_client
from twinflow_core.registry.store import ObjectStore

NAME = "S3 server (SeaweedFS)"
DATA = "data"
# Stopping takes it about four seconds: its parts stop one after the other.
STOP_SECONDS = 20.0
START_SECONDS = 60.0


def start_seaweedfs(folder: Path, bucket: str, say: Say) -> S3Connection:
    """Bring the server up, unless it runs, with this bucket in it.

    Args:
        folder: the services' folder of the checkout.

    Returns:
        How to reach it as its admin.
    """
    home = _home(folder)
    home.mkdir(parents=True, exist_ok=True)
    with service_lock(home):
        identities = embedded_identities(folder)
        write_private(home / "s3.json", json.dumps(server_configuration(identities, bucket)))
    before = seaweedfs_record(folder)
    running = ensure_running(seaweedfs_recipe(folder), say)
    connection = connection_as(folder, running, "admin")
    store = ObjectStore(make_s3_client(connection), bucket)
    store.ensure_bucket(create=True)
    if running != before:
        _wait_until_it_reads(store)
    return connection


def _wait_until_it_reads(store: ObjectStore) -> None:
    """Wait for the data of a server that was just started: it is healthy, and lists, before it can read them."""
    deadline = time.monotonic() + START_SECONDS
    known = next(iter(store.list("")), None)
    while known is not None and time.monotonic() < deadline:
        try:
            store.get(known.key)
            return
        except InfrastructureError:
            time.sleep(0.2)


def stop_seaweedfs(folder: Path, say: Say) -> bool:
    """Stop the server in order; its data stay. Returns whether it was running."""
    return ensure_stopped(seaweedfs_recipe(folder), say)


def connection_as(folder: Path, running: Running, role: str) -> S3Connection:
    """How to reach the running server as `admin`, `trainer` or `promoter`."""
    identity = embedded_identities(folder)[role]
    return S3Connection(_endpoint(running.ports), identity.access_key, identity.secret_key)


def seaweedfs_record(folder: Path) -> Running | None:
    """The record of the server's last start."""
    return read_record(_home(folder))


def seaweedfs_recipe(folder: Path) -> Recipe:
    """How the server is run in a services' folder."""
    home = _home(folder)
    return Recipe(
        name=NAME,
        folder=home,
        ports=5,
        command=lambda ports: _command(home, ports),
        is_healthy=lambda ports: read_url(f"{_endpoint(ports)}/healthz") is not None,
        start_seconds=START_SECONDS,
        stop_seconds=STOP_SECONDS,
        # The server takes AWS_* of its environment for its own identities.
        environment={name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
    )


def _home(folder: Path) -> Path:
    return folder / "seaweedfs"


def _endpoint(ports: tuple[int, ...]) -> str:
    return f"http://{HOST}:{ports[0]}"


def _command(home: Path, ports: tuple[int, ...]) -> list[str]:
    binary = Path(sys.executable).with_name("weed")
    if not binary.exists():
        raise TwinflowError(
            "The S3 server's program `weed` is missing.",
            where=str(binary),
            fix="Install requirements.lock here, or set AWS_ENDPOINT_URL_S3 to use your own server.",
        )
    (home / DATA).mkdir(exist_ok=True)
    s3, master, filer, volume, admin = ports
    return [
        str(binary),
        "-logtostderr=true",
        "mini",
        # Relative to its working directory, which moves along with the repository: an absolute path would be made
        # anew at the old place, and the moved folder would then pass for a copy of it.
        f"-dir={DATA}",
        f"-ip={HOST}",
        f"-ip.bind={HOST}",
        "-s3.config=s3.json",
        f"-s3.port={s3}",
        f"-master.port={master}",
        f"-filer.port={filer}",
        f"-volume.port={volume}",
        f"-admin.port={admin}",
        "-s3.autoCreateBucket=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        "-webdav=false",
        "-admin.ui=false",
    ]
