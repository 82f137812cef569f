from __future__ import annotations

import json
import shutil
import time
import urllib.request
from pathlib import Path

import pytest

from twinflow_core.errors import ExitCode, TwinflowError
from twinflow_core.local.loopback import free_ports
from twinflow_core.local.services import (
    Services,
    down,
    open_registry,
    open_store,
    services_folder,
    status,
    up,
)
from twinflow_core.registry.s3 import S3Connection
from twinflow_core.registry.store import ObjectStore

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def fresh_root(tmp_path: Path) -> Path:
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    return tmp_path


def _use(monkeypatch: pytest.MonkeyPatch, services: Services) -> None:
    for name, value in services.environment().items():
        monkeypatch.setenv(name, value)


def test_up_again_is_quick_and_starts_nothing(
    service_root: Path, services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    assert up(service_root) == services
    # 0.2 s where nothing else runs.
    assert time.monotonic() - began < 3.0
    assert capsys.readouterr().err == ""
    assert [(one.state, one.pid is not None) for one in status(service_root)] == [("running", True)] * 2


def test_the_prefect_server_answers_with_its_ui_and_phones_nobody(services: Services) -> None:
    with urllib.request.urlopen(f"{services.prefect_api_url}/admin/settings", timeout=10) as answer:
        settings = json.load(answer)
    assert settings["server"]["analytics_enabled"] is False
    with urllib.request.urlopen(services.prefect_ui_url, timeout=10) as answer:
        assert b"<html" in answer.read()


def test_a_child_uses_the_users_own_services_and_starts_nothing(
    services: Services, fresh_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _use(monkeypatch, services)
    theirs = up(fresh_root)
    assert (theirs.s3, theirs.prefect_api_url) == (services.s3, services.prefect_api_url)
    assert theirs.prefect_ui_url == services.prefect_ui_url
    assert [one.state for one in status(fresh_root)] == ["yours", "yours"]
    assert down(fresh_root) == []
    assert capsys.readouterr().err == ""
    assert list(services_folder(fresh_root).iterdir()) == []


def test_a_users_own_server_that_is_down_is_infrastructure(
    fresh_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = S3Connection(f"http://127.0.0.1:{free_ports(1)[0]}", "key", "secret")
    for name, value in nobody.environment().items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TwinflowError, match="does not answer") as caught:
        up(fresh_root)
    assert caught.value.code == ExitCode.INFRASTRUCTURE
    assert list(services_folder(fresh_root).iterdir()) == []


def test_a_users_own_server_is_never_given_a_bucket(
    services: Services, fresh_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use(monkeypatch, services)
    params = fresh_root / "params.yaml"
    params.write_text(params.read_text().replace("bucket: twinflow", "bucket: misspelt"))
    with pytest.raises(TwinflowError, match="bucket does not exist") as caught:
        up(fresh_root)
    assert caught.value.code == ExitCode.WRONG_INPUT


def test_the_bucket_and_the_registry_need_no_prefect(service_root: Path, object_store: ObjectStore) -> None:
    assert open_store(service_root).endpoint == object_store.endpoint
    registry = open_registry(service_root)
    assert registry.head("staging").generation == 0


def test_the_environment_of_a_child_is_complete(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "example.com")
    environment = services.environment()
    assert environment["AWS_SESSION_TOKEN"] == ""
    assert environment["AWS_REQUEST_CHECKSUM_CALCULATION"] == "WHEN_REQUIRED"
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert environment["DO_NOT_TRACK"] == "1"
    assert environment["NO_PROXY"] == "example.com,127.0.0.1,localhost,::1"


def test_nothing_is_running_in_a_fresh_clone(fresh_root: Path) -> None:
    assert [one.state for one in status(fresh_root)] == ["stopped", "stopped"]
    assert down(fresh_root) == []
