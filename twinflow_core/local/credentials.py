"""The embedded S3 server's identities: random keys, in a file that only this user can read."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from twinflow_core.local.embedded import write_private

FILE_NAME = "credentials.json"
ROLES = ("admin", "trainer", "promoter")


@dataclass(frozen=True)
class Identity:
    """One S3 identity. The secret never shows in its repr."""

    access_key: str
    secret_key: str = field(repr=False)


def embedded_identities(folder: Path) -> dict[str, Identity]:
    """The identities of a checkout's server by role, made at first use (0600).

    Args:
        folder: the services' folder. Hold the S3 server's lock: two first uses at once must agree.
    """
    path = folder / FILE_NAME
    if path.exists():
        document = json.loads(path.read_text(encoding="utf-8"))
        return {role: Identity(**document[role]) for role in ROLES}
    identities = {role: Identity(secrets.token_hex(10), secrets.token_urlsafe(30)) for role in ROLES}
    write_private(
        path, json.dumps({role: asdict(identity) for role, identity in identities.items()}, indent=2)
    )
    return identities


def server_configuration(identities: dict[str, Identity], bucket: str) -> dict[str, Any]:
    """What each role may do, in the format of `weed -s3.config`.

    A trainer publishes versions and records decisions, but cannot move a channel; a promoter writes the whole
    registry; only the admin makes buckets.
    """
    read = [f"Read:{bucket}", f"List:{bucket}"]
    trained = ("dvc/*", "runs/*", "registry/*/blobs/*", "registry/*/versions/*", "registry/*/decisions/*")
    actions = {
        "admin": ["Admin", "Read", "List", "Tagging", "Write"],
        "trainer": read + [f"Write:{bucket}/{place}" for place in trained],
        "promoter": read + [f"Write:{bucket}/{place}" for place in ("registry/*", ".twinflow-probe/*")],
    }
    return {
        "identities": [
            {
                "name": role,
                "credentials": [{"accessKey": identity.access_key, "secretKey": identity.secret_key}],
                "actions": actions[role],
            }
            for role, identity in identities.items()
        ]
    }
