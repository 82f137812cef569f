"""What lets a version onto a channel: the gates' decision and, where it is asked for, a person's answer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from twinflow_core.errors import ExitCode, TwinflowError
from twinflow_core.registry.answers import Answer
from twinflow_core.registry.channel import StaleDecision
from twinflow_core.registry.decision import Decision, read_decision
from twinflow_core.registry.manifest import canonical_json


class ApprovalMissing(TwinflowError):
    """A person must say yes first, and nobody has, or not about this."""


class RejectedByPerson(TwinflowError):
    """The last answer of a person about this version and channel is no."""


@dataclass(frozen=True)
class Judgement:
    """A recorded decision of the gates: its id, the SHA-256 of the record, and what promotion reads of it."""

    id: str
    sha256: str
    decision: Decision

    @property
    def where(self) -> str:
        """For messages."""
        return f"decision {self.id}"


def read_judgement(identity: str, document: dict[str, Any]) -> Judgement:
    """A decision as the registry stores it. Raises `TwinflowError` that names the key at fault."""
    decision = read_decision(document, f"decision {identity}")
    return Judgement(identity, hashlib.sha256(canonical_json(document)).hexdigest(), decision)


def judge_again(judgement: Judgement) -> str:
    """What to do about a decision that no longer holds."""
    return f"`twinflow judge {(judgement.decision.candidate or '')[:12]}` judges it again."


def require_passed(judgement: Judgement, version: str) -> None:
    """Refuse a decision about something else, a rejection, and a dry run. Raises `TwinflowError`."""
    decision = judgement.decision
    if decision.candidate != version:
        raise _not_allowed(judgement, "candidate", decision.candidate, version, "Judge this version.")
    if decision.outcome == "reject":
        fix = f"Choose another version. {judge_again(judgement)}"
        raise _not_allowed(judgement, "outcome", "reject", "promote", fix, ExitCode.REJECTED)
    if decision.mode != "enforce":
        fix = "Set gates.mode: enforce in params.yaml; `twinflow retrain` then judges again without training."
        raise _not_allowed(judgement, "mode", decision.mode, "enforce", fix)


def _not_allowed(
    judgement: Judgement,
    name: str,
    found: str | None,
    wanted: str,
    fix: str,
    code: ExitCode = ExitCode.WRONG_INPUT,
) -> TwinflowError:
    what = f"The decision does not allow this promotion: its {name} is {found!r}, not {wanted!r}."
    return TwinflowError(what, where=judgement.where, fix=fix, code=code)


def require_judged_for(
    judgement: Judgement, channel: str, generation: int, since: int, stands_there: bool, now: datetime
) -> None:
    """Refuse a decision that does not hold for a channel.

    A decision made for the channel itself holds until it expires and until something else serves. One made
    for another channel counts while that channel serves the version: it was promoted there by it.

    Args:
        generation: the channel's present one.
        since: the generation since which it serves what it serves.
        stands_there: whether the channel that the decision was made for serves the version now.

    Raises:
        TwinflowError: it was made for another channel, which does not serve the version.
        StaleDecision: it expired, or was made against another generation.
    """
    decision = judgement.decision
    if decision.channel != channel:
        if not stands_there:
            raise TwinflowError(
                f"The decision does not allow this promotion: its channel is {decision.channel!r}, "
                f"not {channel!r}, and {decision.channel} does not serve this version.",
                where=judgement.where,
                fix=f"Promote it to {decision.channel} first, or judge it for {channel}.",
            )
        return
    if decision.expires is not None and now >= decision.expires:
        raise StaleDecision(
            f"The decision expired at {decision.expires:%Y-%m-%d %H:%M} UTC.",
            where=judgement.where,
            fix=judge_again(judgement),
        )
    if not since <= decision.generation <= generation:
        raise StaleDecision(
            f"The decision was made against generation {decision.generation} of {channel}, "
            f"which is now at generation {generation}.",
            where=judgement.where,
            fix=judge_again(judgement),
        )


def require_word(
    judgement: Judgement, channel: str, answer: Answer | None, asked: bool, since: int, now: datetime
) -> Answer | None:
    """Refuse what a person rejected, and what needs a person's approval and does not have it.

    Args:
        answer: the last answer about this version and channel.
        asked: whether the policy asks for an approval on this channel.
        since: the generation since which the channel serves what it serves.

    Returns:
        The approval that counts, None if none is needed.

    Raises:
        RejectedByPerson: the answer is no.
        ApprovalMissing: there is none, it expired, or it was about another decision or another champion.
    """
    if answer is not None and answer.answer == "reject":
        raise RejectedByPerson(
            f"{answer.actor} rejected this version for {channel}: {answer.why}",
            where=f"{answer.candidate[:12]}, answered {answer.at:%Y-%m-%d %H:%M} UTC",
            fix="Choose another version, or have it approved (`twinflow approve`).",
            code=ExitCode.REJECTED,
        )
    undecided = judgement.decision.outcome != "promote"
    if not asked and not undecided:
        return None
    lacking = _what_it_lacks(answer, judgement, since, now)
    if lacking is None:
        return answer
    candidate = (judgement.decision.candidate or "")[:12]
    why = (
        f"The decision does not allow this promotion: its outcome is {judgement.decision.outcome!r}"
        if undecided
        else f"registry.approval asks for a person's approval on {channel}"
    )
    raise ApprovalMissing(
        f"{why}, and {lacking}.",
        where=judgement.where,
        fix=f'`twinflow approve {candidate} --channel {channel} --reason "..."`, then promote it again.',
        code=ExitCode.REJECTED,
    )


def _what_it_lacks(answer: Answer | None, judgement: Judgement, since: int, now: datetime) -> str | None:
    if answer is None:
        return "nobody has approved it"
    if not answer.is_open(now):
        return f"the approval by {answer.actor} has expired"
    if answer.generation < since:
        return f"the approval by {answer.actor} was given while another version served"
    if (answer.decision, answer.decision_sha256) != (judgement.id, judgement.sha256):
        return f"the approval by {answer.actor} was given on another decision of the gates"
    return None
