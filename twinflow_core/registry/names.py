"""The names that a user gives, checked before they become part of a key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from twinflow_core.errors import TwinflowError

NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
VERSION_PATTERN = re.compile(r"[0-9a-f]{64}")


def require_name(kind: str, name: str) -> None:
    """Refuse a name of a model, channel or decision that is not lower-case letters, digits and dashes."""
    if not NAME_PATTERN.fullmatch(name):
        raise TwinflowError(
            f"{name!r} is no name of a {kind}.",
            where=kind,
            fix="Use lower-case letters, digits and dashes, at most 63.",
        )


def require_one_of(kind: str, name: str, known: Sequence[str]) -> None:
    """Refuse a name that is none of those there are, with the nearest of them."""
    if name in known:
        return
    close = difflib.get_close_matches(name, known, n=1)
    meant = f"Did you mean `{close[0]}`? " if close else ""
    raise TwinflowError(
        f"There is no {kind} `{name}`.",
        where=", ".join(dict.fromkeys(known)),
        fix=f"{meant}A new one has to be named in params.yaml: registry.{kind}s.",
    )


def require_version(version: str) -> None:
    """Refuse what cannot be a version."""
    if not VERSION_PATTERN.fullmatch(version):
        raise TwinflowError(
            f"{version!r} is no version.",
            where="version",
            fix="Give all 64 hex digits, as `twinflow history` shows them.",
        )
