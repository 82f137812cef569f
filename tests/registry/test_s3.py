from __future__ import annotations

import pytest

from twinflow_core.errors import TwinflowError
from twinflow_core.registry.s3 import connection_from_environment

KEYS = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "the-secret"}


def _set(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_no_endpoint_means_the_embedded_server(monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch, **KEYS)
    assert connection_from_environment() is None


def test_the_users_own_server(monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch, **KEYS, AWS_ENDPOINT_URL_S3="https://s3.example.com", AWS_REGION="eu-central-1")
    connection = connection_from_environment()
    assert connection is not None
    assert (connection.endpoint, connection.region) == ("https://s3.example.com", "eu-central-1")
    assert connection.environment()["AWS_DEFAULT_REGION"] == "eu-central-1"
    assert "the-secret" not in repr(connection)


@pytest.mark.parametrize("missing", KEYS)
def test_an_endpoint_without_keys_names_the_missing_one(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    _set(monkeypatch, **KEYS, AWS_ENDPOINT_URL="http://127.0.0.1:9000")
    monkeypatch.delenv(missing)
    with pytest.raises(TwinflowError, match=missing):
        connection_from_environment()


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9000", "ftp://host", "http://", "http://host:99999"])
def test_an_endpoint_that_is_no_web_address(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    _set(monkeypatch, **KEYS, AWS_ENDPOINT_URL_S3=endpoint)
    with pytest.raises(TwinflowError, match="not a web address"):
        connection_from_environment()
