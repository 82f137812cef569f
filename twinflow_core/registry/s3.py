"""The one place that makes S3 clients, and what it takes to reach a server."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from twinflow_core.errors import TwinflowError
from twinflow_core.registry.faults import explained

ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
DEFAULT_REGION = "us-east-1"
CONNECT_SECONDS = 5
READ_SECONDS = 60
ATTEMPTS = 3
CONNECTIONS = 32

# The SDK's default checksums (2025) are refused by many S3 servers; these also reach DVC and the aws command.
CHECKSUM_VARIABLES = {
    "AWS_REQUEST_CHECKSUM_CALCULATION": "WHEN_REQUIRED",
    "AWS_RESPONSE_CHECKSUM_VALIDATION": "WHEN_REQUIRED",
}


@dataclass(frozen=True)
class S3Connection:
    """An S3 server and the identity to use there. The secrets never show in its repr."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    region: str = DEFAULT_REGION
    session_token: str = field(default="", repr=False)

    def environment(self) -> dict[str, str]:
        """The variables by which a child process (DVC, a stage, a flow) reaches the same server."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            # Empty, not absent: a token of the user's other account must not travel with these keys.
            "AWS_SESSION_TOKEN": self.session_token,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            **CHECKSUM_VARIABLES,
        }


def connection_from_environment() -> S3Connection | None:
    """The user's own server, as told by AWS_ENDPOINT_URL_S3 (or AWS_ENDPOINT_URL) and the AWS keys.

    Returns:
        None if no endpoint is set: then the embedded server is the one to use.

    Raises:
        TwinflowError: an endpoint is set but is not a web address, or a key is missing.
    """
    variable = next((name for name in ENDPOINT_VARIABLES if os.environ.get(name)), None)
    if variable is None:
        return None
    endpoint = os.environ[variable]
    if not _is_web_address(endpoint):
        raise TwinflowError(
            "The S3 endpoint is not a web address.",
            where=f"{variable}={endpoint}",
            fix="Give it as http://host:port or https://host.",
        )
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        if not os.environ.get(key):
            raise TwinflowError(
                f"{variable} is set, but {key} is not.",
                where=endpoint,
                fix=f"Set {key}, or unset {variable} to use the embedded server.",
            )
    return S3Connection(
        endpoint=endpoint,
        access_key=os.environ["AWS_ACCESS_KEY_ID"],
        secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or DEFAULT_REGION,
        session_token=os.environ.get("AWS_SESSION_TOKEN", ""),
    )


def _is_web_address(endpoint: str) -> bool:
    try:
        parts = urlsplit(endpoint)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def is_loopback(endpoint: str) -> bool:
    """Whether an address is on this very machine."""
    return urlsplit(endpoint).hostname in LOOPBACK_HOSTS


def make_s3_client(connection: S3Connection) -> Any:
    """A boto3 S3 client that works with every S3 server: path style, checksums only where required.

    Safe to share between threads. A dead endpoint is noticed within seconds.

    Raises:
        TwinflowError: the AWS configuration of this machine cannot be used.
    """
    config = Config(
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        max_pool_connections=CONNECTIONS,
        # A proxy for the outside world must not be asked for this machine's own loopback.
        proxies={} if is_loopback(connection.endpoint) else None,
    )
    with explained("s3", connection.endpoint):
        return boto3.session.Session().client(
            "s3",
            endpoint_url=connection.endpoint,
            aws_access_key_id=connection.access_key,
            aws_secret_access_key=connection.secret_key,
            aws_session_token=connection.session_token or None,
            region_name=connection.region,
            config=config,
        )
