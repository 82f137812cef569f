"""The decision: an immutable record of what a gate saw and what may happen because of it.

Its digest is the SHA-256 of its canonical JSON: a record that was changed no longer carries it. The registry
gives the id when it stores the record, so the digest leaves the id out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from twinflow_core.errors import TwinflowError
from twinflow_core.gates.metrics import GateName
from twinflow_core.gates.outcome import RuleOutcome
from twinflow_core.gates.rules import WithoutChampion
from twinflow_core.params import Rule

Outcome = Literal["promote", "reject", "needs-approval"]
Mode = Literal["enforce", "dry-run"]

VALID_FOR = timedelta(hours=72)
_BEST_FIRST: tuple[Outcome, ...] = ("promote", "needs-approval", "reject")


class Decision(BaseModel):
    """One gate's decision on one candidate. Made by `make_decision`, which gives it its digest.

    Args:
        id: the registry's name for it, empty before it is stored.
        digest: SHA-256 of all but id and digest.
        format: version of this record's layout.
        model: the registry's model name.
        run: the run that made the candidate.
        judged: hash of what was measured, as DVC has it: the candidate's weights, or the exported package.
        candidate: the version that this is about, None before it is published.
        gate: which gate decided.
        builds_on: digest of the decision of the gate before, None for the first gate.
        mode: `dry-run` judges and records and never moves anything.
        outcome: what may happen after this gate and every gate before it.
        channel, generation: the channel and its generation that the decision was made against (0: no entry
            yet), and is valid for.
        champion: the version that served there, None if none did.
        outcomes: every rule's outcome.
        on_no_champion, on_inconclusive: the policies for what the rules leave open.
        rules: the rules themselves.
        rules_hash, prompts_hash, evaluator_hash: SHA-256 of the rules, of the prompts evaluated and of the
            code and settings that scored them.
        seed, resamples: how intervals were made.
        actor: who ran the gate.
        why: what it was run for, in a few words.
        created, expires: UTC.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    id: str = ""
    digest: str
    format: Literal[2] = 2
    model: str
    run: str
    judged: str
    candidate: str | None
    gate: GateName
    builds_on: str | None
    mode: Mode
    outcome: Outcome
    channel: str
    generation: Annotated[int, Field(ge=0)]
    champion: str | None
    outcomes: tuple[RuleOutcome, ...]
    on_no_champion: WithoutChampion
    on_inconclusive: Literal["needs-approval", "reject"]
    rules: tuple[Rule, ...]
    rules_hash: str
    prompts_hash: str
    evaluator_hash: str
    seed: int
    resamples: int
    actor: str
    why: str
    created: AwareDatetime
    expires: AwareDatetime

    def document(self) -> dict[str, Any]:
        """The record as JSON values, to store."""
        return self.model_dump(mode="json")

    def obstacle(self, now: datetime) -> str | None:
        """Why this decision promotes nothing, or None if it may.

        Only what the record alone and the time can tell; version, outcome, mode and the channel's generation
        are checked by the registry, when it promotes.
        """
        if self.gate != "serving":
            return "only a decision of the serving gate, made on the exported package, can promote"
        if now >= self.expires:
            return f"the decision expired at {self.expires:%Y-%m-%d %H:%M} UTC"
        return None


def decide(
    outcomes: Sequence[RuleOutcome],
    *,
    has_champion: bool,
    on_no_champion: WithoutChampion,
    on_inconclusive: Literal["needs-approval", "reject"],
) -> Outcome:
    """What one gate's outcomes come to.

    A required FAIL or ERROR rejects, as does a gate without outcomes; a required INCONCLUSIVE comes to
    `on_inconclusive`, and to a person's approval where only the champion is missing. Without a champion
    nothing better than `on_no_champion` comes out.
    """
    required = [outcome for outcome in outcomes if outcome.severity == "required"]
    by_rules: Outcome = "promote"
    if not outcomes or any(outcome.status in ("FAIL", "ERROR") for outcome in required):
        by_rules = "reject"
    elif any(outcome.status == "INCONCLUSIVE" and outcome.decided_by != "policy" for outcome in required):
        by_rules = on_inconclusive
    elif any(outcome.status != "PASS" for outcome in required):
        by_rules = "needs-approval"
    return by_rules if has_champion else worst_outcome([by_rules, on_no_champion])


def worst_outcome(outcomes: Iterable[Outcome]) -> Outcome:
    """The most restrictive of several outcomes; reject for none."""
    return max(outcomes, key=_BEST_FIRST.index, default="reject")


def make_decision(
    *,
    model: str,
    run: str,
    judged: str,
    candidate: str | None,
    gate: GateName,
    mode: Mode,
    outcomes: Sequence[RuleOutcome],
    channel: str,
    generation: int,
    champion: str | None,
    on_no_champion: WithoutChampion,
    on_inconclusive: Literal["needs-approval", "reject"],
    rules: Sequence[Rule],
    prompts_hash: str,
    evaluator_hash: str,
    seed: int,
    resamples: int,
    actor: str,
    why: str,
    created: datetime,
    builds_on: Decision | None = None,
) -> Decision:
    """The decision that the outcomes come to, together with the decision it builds on.

    Raises:
        ValueError: `builds_on` is of another run, mode, champion or generation: the two do not add up.
    """
    by_gate = decide(
        outcomes,
        has_champion=champion is not None,
        on_no_champion=on_no_champion,
        on_inconclusive=on_inconclusive,
    )
    if builds_on is not None:
        before = (builds_on.run, builds_on.mode, builds_on.channel, builds_on.generation, builds_on.champion)
        after = (run, mode, channel, generation, champion)
        if before != after:
            raise ValueError(f"the {builds_on.gate} decision was made under {before}, not {after}")
        by_gate = worst_outcome([builds_on.outcome, by_gate])
    unnamed = Decision(
        digest="",
        model=model,
        run=run,
        judged=judged,
        candidate=candidate,
        gate=gate,
        builds_on=builds_on.digest if builds_on else None,
        mode=mode,
        outcome=by_gate,
        channel=channel,
        generation=generation,
        champion=champion,
        outcomes=tuple(outcomes),
        on_no_champion=on_no_champion,
        on_inconclusive=on_inconclusive,
        rules=tuple(rules),
        rules_hash=rules_hash(rules),
        prompts_hash=prompts_hash,
        evaluator_hash=evaluator_hash,
        seed=seed,
        resamples=resamples,
        actor=actor,
        why=why,
        created=created,
        expires=created + VALID_FOR,
    )
    return unnamed.model_copy(update={"digest": _digest(unnamed.document())})


def read_decision(document: dict[str, Any], where: str = "decision") -> Decision:
    """A decision from its stored document.

    Raises:
        TwinflowError: the document is no decision, or its content does not match its digest.
    """
    try:
        decision = Decision.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        raise TwinflowError(
            f"This is no decision record: {'.'.join(map(str, first['loc']))}: {first['msg']}.",
            where=where,
            fix="Judge the candidate again.",
        ) from None
    if _digest(decision.document()) != decision.digest:
        raise TwinflowError(
            "The decision record was changed after it was made.",
            where=where,
            fix="Judge the candidate again.",
        )
    return decision


def rules_hash(rules: Sequence[Rule]) -> str:
    """SHA-256 of the rules of a gate."""
    return hashlib.sha256(canonical_json([rule.model_dump(mode="json") for rule in rules])).hexdigest()


def canonical_json(document: Any) -> bytes:
    """One spelling for one document: sorted keys, no spaces, UTF-8, no NaN."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def _digest(document: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json({**document, "id": "", "digest": ""})).hexdigest()
