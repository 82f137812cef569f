"""Flows that a person starts: approve a candidate, promote it to a channel, or roll a channel back."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Literal

from prefect import flow

from flows.command import run_command
from tasks.log import say
from tasks.promote import promote_judged, record_answer, roll_back
from twinflow_core.actor import actor
from twinflow_core.errors import ExitCode, TwinflowError
from twinflow_core.local.services import open_registry
from twinflow_core.registry.answers import Answer
from twinflow_core.registry.channel import Entry
from twinflow_core.registry.lookup import find_version
from twinflow_core.registry.registry import Registry

SOURCE = "staging"


@flow(name="promote", persist_result=False)
def promote(
    reason: str = "", version: str = "", channel: str = "production", who: str = "", root: str = "."
) -> Entry:
    """Make a channel serve a judged version: the same bytes, nothing is rebuilt.

    Args:
        reason: why; it stays in the history. Empty for what the person said who approved it.
        version: a version or its beginning; empty for what staging serves.
        channel: where to.
        who: who acts; the user's name on this machine unless told.
        root: the repository.

    Raises:
        StaleDecision: somebody else changed the channel meanwhile.
        ApprovalMissing: a person must approve it first; the message has the command.
        TwinflowError: no such version, or the gates did not let it pass.
    """
    registry = open_registry(Path(root), say)
    return promote_judged(registry, channel, chosen_version(registry, version), actor(who), reason)


@flow(name="approve", flow_run_name="{answer} {candidate} for {channel}", persist_result=False)
def approve(
    candidate: str,
    reason: str,
    answer: Literal["approve", "reject"] = "approve",
    channel: str = "production",
    who: str = "",
    root: str = ".",
) -> Answer:
    """Record a person's answer about a candidate; moves nothing. As a deployment, its form is the approval.

    Nothing waits for it: a run that needs an approval has ended, and a promotion reads the answer later.

    Args:
        candidate: a version or its beginning.
        reason: why; it stays on record.
        answer: yes or no. A no lasts until somebody says yes.
        channel: what it is about to serve.
        who: who answers; the user's name on this machine unless told.
        root: the repository.

    Raises:
        TwinflowError: no such version, or the gates did not let it pass.
    """
    registry = open_registry(Path(root), say)
    version = find_version(registry, candidate)
    return record_answer(registry, answer, channel, version, actor(who), reason)


@flow(name="rollback", persist_result=False)
def rollback(
    reason: str, channel: str = "production", version: str = "", who: str = "", root: str = "."
) -> Entry:
    """Make a channel serve what it served before; needs no gate, and works while the channel is held.

    Args:
        reason: why; it stays in the history.
        channel: which.
        version: a version that it served, or its beginning; empty for the one before.
        who: who acts.
        root: the repository.

    Raises:
        TwinflowError: there is nothing to go back to.
    """
    registry = open_registry(Path(root), say)
    return roll_back(
        registry, channel, actor(who), reason, find_version(registry, version) if version else None
    )


def chosen_version(registry: Registry, text: str) -> str:
    """The version whose name begins so; what staging serves for an empty text.

    Raises:
        TwinflowError: there is none.
    """
    version = find_version(registry, text) if text else registry.head(SOURCE).version
    if version is None:
        raise TwinflowError(
            f"{SOURCE} serves nothing that could be promoted.",
            where=f"the registry of {registry.model}",
            fix="Run `make retrain` first, or name a version.",
        )
    return version


def _work(options: argparse.Namespace) -> tuple[Any, int]:
    chosen = promote if options.verb == "promote" else rollback
    told: dict[str, str] = {
        "reason": options.reason,
        "version": options.version,
        "channel": options.channel,
        "who": options.actor,
    }
    entry: Entry = chosen(**told)
    print(
        f"{entry.action}: {options.channel} serves {(entry.version or '')[:12]} (generation {entry.generation})."
    )
    return entry.model_dump(mode="json"), ExitCode.DONE


if __name__ == "__main__":
    command = argparse.ArgumentParser(prog="python -m flows.promote", description=__doc__)
    command.add_argument("verb", choices=["promote", "rollback"])
    command.add_argument("--reason", default="")
    command.add_argument("--channel", default="production")
    command.add_argument("--version", default="")
    command.add_argument("--actor", default="")
    run_command(command, _work)
