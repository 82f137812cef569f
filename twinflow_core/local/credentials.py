"""The embedded S3 server's identities: random keys, in a file that only this user can read."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from twinflow_core.local.embedded import write_private

FILE_NAME = "credentials.json"
ROLES = ("admin", "trainer", "promoter")
WRITING = ("s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload")
NOT_OF_CHANNELS = ("blobs", "versions", "decisions")


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
    """What each role may do, in the format of `weed -s3.config`."""
    policies = {"trainer": _trainer_policy(bucket), "promoter": _promoter_policy(bucket)}
    rights = {
        role: {"policyNames": [role]}
        if role in policies
        else {"actions": ["Admin", "Read", "List", "Tagging", "Write"]}
        for role in ROLES
    }
    return {
        "identities": [
            {
                "name": role,
                "credentials": [{"accessKey": identity.access_key, "secretKey": identity.secret_key}],
                **rights[role],
            }
            for role, identity in identities.items()
        ],
        "policies": [
            {"name": role, "content": json.dumps({"Version": "2012-10-17", "Statement": statements})}
            for role, statements in policies.items()
        ],
    }


def _trainer_policy(bucket: str) -> list[dict[str, Any]]:
    """Publishes versions and records what gates decide; can neither approve nor move a channel.

    The denial is needed: `*` in a resource also stands for slashes, so that `registry/*/versions/*` alone
    would take in a channel's folder of that name.
    """
    places = ("dvc/*", "runs/*", "registry/*/blobs/*", "registry/*/versions/*", "registry/*/decisions/*")
    return [
        _reading(bucket),
        _statement("Allow", WRITING, bucket, places),
        _statement("Deny", WRITING, bucket, ("registry/*/channels/*", "registry/*/approvals/*")),
    ]


def _promoter_policy(bucket: str) -> list[dict[str, Any]]:
    """Approves and moves channels; can change neither versions nor decisions, and remove no history."""
    places = ("registry/*/channels/*", "registry/*/approvals/*")
    return [
        _reading(bucket),
        _statement("Allow", ("s3:PutObject",), bucket, places),
        _statement("Allow", WRITING, bucket, (".twinflow-probe/*",)),
        _statement("Deny", WRITING, bucket, [f"registry/*/{folder}/*" for folder in NOT_OF_CHANNELS]),
    ]


def _reading(bucket: str) -> dict[str, Any]:
    return {
        "Effect": "Allow",
        "Action": ["s3:GetObject", "s3:ListBucket"],
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
    }


def _statement(effect: str, actions: Sequence[str], bucket: str, places: Sequence[str]) -> dict[str, Any]:
    resources = [f"arn:aws:s3:::{bucket}/{place}" for place in places]
    return {"Effect": effect, "Action": list(actions), "Resource": resources}
