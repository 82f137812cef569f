"""Decisions: what outcomes come to, and a record that cannot be changed unseen."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinflow_core.errors import TwinflowError
from twinflow_core.gates.decision import (
    VALID_FOR,
    Decision,
    canonical_json,
    decide,
    make_decision,
    read_decision,
    worst_outcome,
)
from twinflow_core.gates.outcome import RuleOutcome, Status
from twinflow_core.params import Rule
from twinflow_core.registry import decision as registry_decision

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
VERSION = "ab" * 32
RULE = Rule(id="score", metric="candidate.nfe1.score", min=0.5)


def outcome(status: Status, severity: str = "required") -> RuleOutcome:
    return RuleOutcome.model_validate(
        {
            "id": "score",
            "metric": "candidate.nfe1.score",
            "severity": severity,
            "kind": "min",
            "status": status,
            "reason": "because",
            "decided_by": "point",
            "value": 0.1 + 0.2,
            "bound": 0.5,
        }
    )


def decision(**changes: Any) -> Decision:
    arguments: dict[str, Any] = {
        "model": "shapes",
        "run": "20260102-030405-abcd",
        "judged": "md5:1",
        "candidate": None,
        "gate": "quality",
        "mode": "enforce",
        "outcomes": [outcome("PASS")],
        "channel": "staging",
        "generation": 3,
        "champion": "cd" * 32,
        "on_no_champion": "promote",
        "on_inconclusive": "needs-approval",
        "rules": [RULE],
        "prompts_hash": "p",
        "evaluator_hash": "e",
        "seed": 7,
        "resamples": 2000,
        "actor": "tests",
        "why": "a test",
        "created": NOW,
    }
    return make_decision(**{**arguments, **changes})


statuses = st.lists(
    st.tuples(
        st.sampled_from(["PASS", "FAIL", "WARN", "INCONCLUSIVE", "ERROR"]),
        st.sampled_from(["required", "warn"]),
    )
)


@given(statuses, st.booleans(), st.sampled_from(["promote", "needs-approval", "reject"]))
def test_promotes_only_what_passed_every_required_rule(
    rules: list[tuple[Status, str]], has_champion: bool, policy: Any
) -> None:
    outcomes = [outcome(status, severity) for status, severity in rules]
    result = decide(
        outcomes, has_champion=has_champion, on_no_champion=policy, on_inconclusive="needs-approval"
    )
    required = [status for status, severity in rules if severity == "required"]
    if result == "promote":
        assert outcomes
        assert all(status == "PASS" for status in required)
        assert has_champion or policy == "promote"
    if {"FAIL", "ERROR"} & set(required):
        assert result == "reject"


def test_what_outcomes_come_to() -> None:
    def of(*outcomes: RuleOutcome, on_inconclusive: Any = "needs-approval") -> str:
        return decide(outcomes, has_champion=True, on_no_champion="reject", on_inconclusive=on_inconclusive)

    assert of() == "reject"
    assert of(outcome("PASS"), outcome("INCONCLUSIVE")) == "needs-approval"
    assert of(outcome("PASS"), outcome("INCONCLUSIVE"), on_inconclusive="reject") == "reject"
    assert of(outcome("INCONCLUSIVE", "warn"), outcome("PASS"), on_inconclusive="reject") == "promote"
    assert of(outcome("INCONCLUSIVE"), outcome("ERROR")) == "reject"
    assert of(outcome("PASS"), outcome("ERROR", "warn"), outcome("WARN", "warn")) == "promote"
    alone = {"has_champion": False, "on_no_champion": "needs-approval", "on_inconclusive": "reject"}
    assert decide([outcome("PASS")], **alone) == "needs-approval"  # type: ignore[arg-type]
    by_policy = outcome("INCONCLUSIVE").model_copy(update={"decided_by": "policy"})
    assert decide([by_policy], **alone) == "needs-approval"  # type: ignore[arg-type]


def test_worst_outcome() -> None:
    assert worst_outcome(["promote", "needs-approval"]) == "needs-approval"
    assert worst_outcome(["reject", "promote"]) == "reject"
    assert worst_outcome([]) == "reject"


def test_digest_is_stable_and_follows_content() -> None:
    assert decision().digest == decision().digest
    assert decision().digest != decision(seed=8).digest
    assert decision().digest != decision(rules=[RULE.model_copy(update={"min": 0.4})]).digest


def test_canonical_json_has_one_spelling() -> None:
    assert (
        canonical_json({"b": 1, "a": "é"}) == canonical_json({"a": "é", "b": 1}) == '{"a":"é","b":1}'.encode()
    )
    with pytest.raises(ValueError):
        canonical_json({"a": float("nan")})


def test_round_trips_through_json_with_the_registrys_id() -> None:
    made = decision()
    stored = json.loads(canonical_json({**made.document(), "id": "20260102-030405-aaaa"}))
    assert read_decision(stored).digest == made.digest


@pytest.mark.parametrize("change", [{"outcome": "promote"}, {"generation": 4}, {"mode": "enforce"}])
def test_a_changed_record_is_refused(change: dict[str, Any]) -> None:
    document = decision(outcomes=[outcome("FAIL")], mode="dry-run").document()
    with pytest.raises(TwinflowError, match="changed"):
        read_decision({**document, **change})


def test_a_record_that_is_none_is_refused() -> None:
    with pytest.raises(TwinflowError, match="no decision record"):
        read_decision({"outcome": "promote"})


def test_serving_builds_on_quality_and_is_never_better() -> None:
    quality = decision(outcomes=[outcome("INCONCLUSIVE")])
    serving = decision(gate="serving", candidate=VERSION, builds_on=quality)
    assert (quality.outcome, serving.outcome) == ("needs-approval", "needs-approval")
    assert serving.builds_on == quality.digest
    with pytest.raises(ValueError, match="was made under"):
        decision(gate="serving", generation=4, builds_on=quality)


def test_only_a_fresh_decision_of_the_serving_gate_promotes() -> None:
    serving = decision(gate="serving", candidate=VERSION)
    assert serving.obstacle(NOW) is None
    assert "expired" in (serving.obstacle(NOW + VALID_FOR) or "")
    assert serving.obstacle(NOW + VALID_FOR - timedelta(seconds=1)) is None
    assert "serving gate" in (decision().obstacle(NOW) or "")


def test_the_registry_reads_it() -> None:
    document = decision(gate="serving", candidate=VERSION).document()
    read = registry_decision.read_decision(document, "a decision")
    assert (read.candidate, read.channel, read.generation, read.outcome) == (VERSION, "staging", 3, "promote")
