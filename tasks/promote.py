"""The steps that change what a channel serves."""

from __future__ import annotations

import getpass
import os
from datetime import UTC, datetime
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from twinflow_core.errors import TwinflowError
from twinflow_core.registry.channel import Entry
from twinflow_core.registry.registry import Registry

ACTOR_VARIABLE = "TWINFLOW_ACTOR"


def actor(named: str = "") -> str:
    """Who acts: as told, else `TWINFLOW_ACTOR`, else the user's name on this machine."""
    if named or (named := os.environ.get(ACTOR_VARIABLE, "")):
        return named
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


@task(name="promote", cache_policy=NO_CACHE)
def promote_candidate(
    registry: Registry, channel: str, version: str, decision_id: str, generation: int, who: str, reason: str
) -> Entry:
    """Make a channel serve a version by a decision; see `Registry.promote`."""
    return registry.promote(channel, version, decision_id, generation, who, reason)


@task(name="approve", cache_policy=NO_CACHE)
def approve(registry: Registry, channel: str, version: str, who: str, reason: str) -> tuple[str, int]:
    """Record a person's approval of a judged version for a channel as it is now.

    Returns:
        The approval's id, and the channel's generation that it holds for.

    Raises:
        TwinflowError: the gates never judged this version, rejected it, or ran dry.
    """
    judged = _decision_about(registry, version)
    if judged is None or judged["outcome"] == "reject" or judged["mode"] != "enforce":
        found = "was never judged" if judged is None else "was judged in a dry run"
        if judged is not None and judged["outcome"] == "reject":
            found = "was rejected"
        raise TwinflowError(
            f"Version {version[:12]} {found}: it cannot be approved.",
            where=f"the registry of {registry.model}",
            fix="Run `make retrain` with gates.mode: enforce, and promote what passes.",
        )
    generation = registry.head(channel).generation
    approval = {
        "candidate": version,
        "channel": channel,
        "generation": generation,
        "outcome": "promote",
        "mode": "enforce",
        "approves": judged["id"],
        "actor": who,
        "why": reason,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return registry.record_decision(approval), generation


@task(name="rollback", cache_policy=NO_CACHE)
def roll_back(registry: Registry, channel: str, who: str, reason: str, to: str | None) -> Entry:
    """Make a channel serve what it served before; see `Registry.rollback`."""
    return registry.rollback(channel, who, reason, to)


def _decision_about(registry: Registry, version: str) -> dict[str, Any] | None:
    """The latest decision of the gates about a version."""
    for identity in reversed(registry.decisions()):
        decision = registry.decision(identity)
        if decision["candidate"] == version and not decision.get("approves"):
            return decision
    return None
