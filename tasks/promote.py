"""The steps that change what a channel serves."""

from __future__ import annotations

from typing import Literal

from prefect import task
from prefect.cache_policies import NO_CACHE

from twinflow_core.actor import actor as actor
from twinflow_core.errors import TwinflowError
from twinflow_core.registry.answers import Answer
from twinflow_core.registry.channel import Entry
from twinflow_core.registry.registry import Registry


@task(name="promote", cache_policy=NO_CACHE)
def promote_candidate(
    registry: Registry, channel: str, version: str, decision_id: str, generation: int, who: str, reason: str
) -> Entry:
    """Make a channel serve a version by a decision; see `Registry.promote`."""
    return registry.promote(channel, version, decision_id, generation, who, reason)


@task(name="promote judged", cache_policy=NO_CACHE)
def promote_judged(registry: Registry, channel: str, version: str, who: str, reason: str) -> Entry:
    """Make a channel serve a version on what the gates and people said of it; the same bytes, nothing rebuilt.

    Args:
        reason: why; empty for what the person said who approved it.

    Raises:
        TwinflowError: the channel serves it already, or what `Registry.promote` raises.
    """
    state = registry.head(channel)
    if state.version == version:
        raise TwinflowError(
            f"{channel} serves {version[:12]} already.",
            where=f"{channel}, generation {state.generation}",
            fix="Nothing needs to be done.",
        )
    judgement = registry.judgement_about(version, channel)
    decision = judgement.decision
    generation = decision.generation if decision.channel == channel else state.generation
    if not reason:
        answer = registry.answers.latest(version, channel)
        reason = f"{answer.actor} approved it: {answer.why}" if answer else ""
    return registry.promote(channel, version, judgement.id, generation, who, reason)


@task(name="answer", cache_policy=NO_CACHE)
def record_answer(
    registry: Registry, word: Literal["approve", "reject"], channel: str, version: str, who: str, reason: str
) -> Answer:
    """Record a person's yes or no to a version on a channel; see `Registry.approve` and `Registry.reject`."""
    answer = registry.approve if word == "approve" else registry.reject
    return answer(channel, version, who, reason)


@task(name="rollback", cache_policy=NO_CACHE)
def roll_back(registry: Registry, channel: str, who: str, reason: str, to: str | None) -> Entry:
    """Make a channel serve what it served before; see `Registry.rollback`."""
    return registry.rollback(channel, who, reason, to)
