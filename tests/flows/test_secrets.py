"""After all that the end-to-end tests ran: no secret of the environment stands anywhere it was written."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline_clone import CANARY, twinflow
from twinflow_core.local.services import Services
from twinflow_core.registry.store import ObjectStore

pytestmark = pytest.mark.slow
# Where secrets belong: the embedded server's own configuration, readable by this user alone.
THEIR_PLACE = {"credentials.json", "s3.json", "data"}


@pytest.fixture(scope="module")
def secrets(env: dict[str, str]) -> list[bytes]:
    return [env["AWS_SECRET_ACCESS_KEY"].encode(), CANARY.encode()]


def files_below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name in THEIR_PLACE and path.is_relative_to(folder) and "services" in path.parts:
            continue
        if path.is_dir() and not path.is_symlink():
            yield from files_below(path)
        elif path.is_file():
            yield path


def test_no_secret_lies_in_a_file_of_the_clone_or_its_services(
    clone: Path, service_root: Path, first: dict[str, Any], services: Services, secrets: list[bytes]
) -> None:
    places = [clone, service_root]
    assert services.prefect_home is not None
    looked_at = 0
    for place in places:
        for path in files_below(place):
            content = path.read_bytes()
            looked_at += 1
            assert not [secret for secret in secrets if secret in content], path
    assert looked_at > 100
    # Artifacts, logs, parameters and states of every flow run.
    assert list(services.prefect_home.glob("*.db"))


def test_no_secret_lies_in_a_commit_of_a_run(
    clone: Path, first: dict[str, Any], secrets: list[bytes]
) -> None:
    commits = subprocess.run(
        ["git", "rev-list", "--all"], cwd=clone, capture_output=True, text=True, check=True
    ).stdout.split()
    assert commits
    for secret in secrets:
        found = subprocess.run(
            ["git", "grep", "-I", "-l", "-F", secret.decode(), *commits],
            cwd=clone,
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.stdout == ""
    ignored = subprocess.run(["git", "check-ignore", ".env", ".env.local"], cwd=clone, capture_output=True)
    assert ignored.returncode == 0


def test_no_secret_lies_in_the_bucket(
    first: dict[str, Any], object_store: ObjectStore, secrets: list[bytes]
) -> None:
    keys = [info.key for prefix in ("runs/", "registry/tiny/") for info in object_store.list(prefix)]
    assert any(key.endswith("report.html") for key in keys)
    for key in keys:
        content = object_store.get(key)
        assert not [secret for secret in secrets if secret in content], key


def test_no_secret_is_shown(
    clone: Path, first: dict[str, Any], env: dict[str, str], secrets: list[bytes]
) -> None:
    for arguments in (["show", first["id"]], ["runs", "--json"], ["status"], ["doctor", "--json"]):
        done = twinflow(clone, *arguments, env=env)
        said = (done.stdout + done.stderr).encode()
        assert said
        assert not [secret for secret in secrets if secret in said], arguments
