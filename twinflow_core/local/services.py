"""The two services of a checkout: the embedded ones, or the user's own where the environment names them."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from twinflow_core.home import state_home
from twinflow_core.local import prefect_server, seaweedfs
from twinflow_core.local.daemon import is_alive
from twinflow_core.local.embedded import Recipe, Running, Say
from twinflow_core.local.prefect_server import PRIVACY_VARIABLES
from twinflow_core.params import PARAMS_FILE, load_params
from twinflow_core.registry.registry import Registry
from twinflow_core.registry.s3 import (
    LOOPBACK_HOSTS,
    S3Connection,
    connection_from_environment,
    make_s3_client,
)
from twinflow_core.registry.store import ObjectStore

PREFECT_VARIABLE = "PREFECT_API_URL"


def say_on_stderr(line: str) -> None:
    """Progress for people: standard output stays free for what a command is asked for."""
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Services:
    """Where the S3 server, the bucket and the Prefect server are.

    `prefect_home` is the embedded server's own PREFECT_HOME, None for a server of the user's.
    """

    s3: S3Connection
    bucket: str
    prefect_api_url: str
    prefect_ui_url: str
    prefect_home: Path | None

    def environment(self) -> dict[str, str]:
        """What a child process needs in its environment to use the same services."""
        home = {"PREFECT_HOME": str(self.prefect_home)} if self.prefect_home else {}
        return {
            **self.s3.environment(),
            **PRIVACY_VARIABLES,
            **home,
            **_no_proxy_for_loopback(),
            PREFECT_VARIABLE: self.prefect_api_url,
        }


@dataclass(frozen=True)
class ServiceStatus:
    """One service as `twinflow status` shows it: `yours` is a server that the environment names."""

    name: str
    state: Literal["running", "stopped", "not answering", "yours"]
    address: str
    pid: int | None
    log: str


def up(root: Path, say: Say = say_on_stderr) -> Services:
    """Start what is not running. Idempotent, and quick when all is up.

    Args:
        root: the repository's root, with params.yaml.
        say: takes lines for people.

    Raises:
        TwinflowError: params.yaml or the AWS variables are wrong.
        InfrastructureError: a service does not come up, or the user's own S3 server does not answer.
    """
    bucket = load_params(root / PARAMS_FILE).registry.bucket
    folder = services_folder(root)
    own = _own_s3(bucket)
    with ThreadPoolExecutor(2) as pool:
        prefect = pool.submit(_prefect, folder, say)
        connection = own or seaweedfs.start_seaweedfs(folder, bucket, say)
        api_url, home = prefect.result()
    return Services(connection, bucket, api_url, _ui_url(api_url), home)


def open_store(root: Path, say: Say = say_on_stderr) -> ObjectStore:
    """The bucket alone, for commands that need no Prefect; starts the embedded S3 server if it is needed."""
    bucket = load_params(root / PARAMS_FILE).registry.bucket
    connection = _own_s3(bucket) or seaweedfs.start_seaweedfs(services_folder(root), bucket, say)
    return ObjectStore(make_s3_client(connection), bucket)


def open_registry(root: Path, say: Say = say_on_stderr) -> Registry:
    """The registry of the model that params.yaml names, in its bucket."""
    params = load_params(root / PARAMS_FILE).registry
    return Registry(open_store(root, say), params.model, params.approval, params.channels)


def running_store(root: Path) -> ObjectStore | None:
    """The bucket on the user's own server or the running embedded one; None if that does not run."""
    bucket = load_params(root / PARAMS_FILE).registry.bucket
    connection = connection_from_environment()
    folder = services_folder(root)
    record = seaweedfs.seaweedfs_record(folder)
    if connection is None and record is not None and is_alive(record.daemon):
        connection = seaweedfs.connection_as(folder, record, "admin")
    return ObjectStore(make_s3_client(connection), bucket) if connection else None


def running_prefect(root: Path) -> tuple[str | None, Path | None]:
    """The API's address and PREFECT_HOME as in `Services`; no address if no server is named or running."""
    own = os.environ.get(PREFECT_VARIABLE)
    if own:
        return own, None
    folder = services_folder(root)
    record = prefect_server.prefect_record(folder)
    if record is None or not is_alive(record.daemon):
        return None, None
    return prefect_server.prefect_api_url(record), prefect_server.prefect_home(folder)


def down(root: Path, say: Say = say_on_stderr) -> list[str]:
    """Stop the embedded services of this checkout; data stay, and the user's own servers are left alone.

    Returns:
        The names of those that were running.
    """
    folder = services_folder(root)
    with ThreadPoolExecutor(2) as pool:
        s3 = pool.submit(seaweedfs.stop_seaweedfs, folder, say)
        prefect = pool.submit(prefect_server.stop_prefect, folder, say)
        stopped = {seaweedfs.NAME: s3.result(), prefect_server.NAME: prefect.result()}
    return [name for name, was_running in stopped.items() if was_running]


def status(root: Path) -> list[ServiceStatus]:
    """What runs, where, and where its log is. Starts nothing and needs no valid params.yaml."""
    folder = services_folder(root)
    s3 = connection_from_environment()
    prefect = os.environ.get(PREFECT_VARIABLE)
    return [
        _yours(seaweedfs.NAME, s3.endpoint)
        if s3
        else _embedded(seaweedfs.seaweedfs_recipe(folder), seaweedfs.seaweedfs_record(folder), ""),
        _yours(prefect_server.NAME, prefect)
        if prefect
        else _embedded(prefect_server.prefect_recipe(folder), prefect_server.prefect_record(folder), "/api"),
    ]


def services_folder(root: Path) -> Path:
    """Where the embedded services of a checkout keep their data, logs and credentials."""
    folder = state_home(root) / "services"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _own_s3(bucket: str) -> S3Connection | None:
    own = connection_from_environment()
    if own is not None:
        ObjectStore(make_s3_client(own), bucket).ensure_bucket(create=False)
    return own


def _prefect(folder: Path, say: Say) -> tuple[str, Path | None]:
    own = os.environ.get(PREFECT_VARIABLE)
    if own:
        return own, None
    return prefect_server.start_prefect(folder, say), prefect_server.prefect_home(folder)


def _ui_url(api_url: str) -> str:
    return os.environ.get("PREFECT_UI_URL") or api_url.rstrip("/").removesuffix("/api")


def _no_proxy_for_loopback() -> dict[str, str]:
    known = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    hosts = [host for host in known.split(",") if host]
    value = ",".join([*hosts, *(host for host in LOOPBACK_HOSTS if host not in hosts)])
    return {"NO_PROXY": value, "no_proxy": value}


def _yours(name: str, address: str) -> ServiceStatus:
    return ServiceStatus(name, "yours", address, None, "")


def _embedded(recipe: Recipe, running: Running | None, path: str) -> ServiceStatus:
    if running is None or not is_alive(running.daemon):
        return ServiceStatus(recipe.name, "stopped", "", None, str(recipe.log))
    return ServiceStatus(
        recipe.name,
        "running" if recipe.is_healthy(running.ports) else "not answering",
        f"http://127.0.0.1:{running.ports[0]}{path}",
        running.daemon.pid,
        str(recipe.log),
    )
