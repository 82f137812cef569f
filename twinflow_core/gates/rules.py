"""From rules, metrics and per-image results to outcomes.

PASS if even the bad side of the interval is within the bound, FAIL if even its good side is not, INCONCLUSIVE
between. What no interval can be had for by its nature (a latency, a distance of whole sets) is decided on its
value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from twinflow_core.gates.estimates import Resampling, few_step_setting
from twinflow_core.gates.evidence import Evidence, Parts, gather
from twinflow_core.gates.metrics import UnusableMetricError
from twinflow_core.gates.outcome import RuleOutcome, Status
from twinflow_core.gates.statistics import holm_levels
from twinflow_core.gates.verdicts import (
    decided_on_interval,
    decided_on_value,
    interval_decides,
    limits_of,
    rule_p_value,
)
from twinflow_core.params import Rule

WithoutChampion = Literal["promote", "needs-approval", "reject"]


def evaluate_rules(
    rules: Sequence[Rule],
    evidence: Evidence,
    *,
    resamples: int,
    seed: int,
    on_no_champion: WithoutChampion,
    looks: int = 1,
) -> tuple[RuleOutcome, ...]:
    """Judge every rule. Nothing here raises for bad evidence: what cannot be computed is an ERROR outcome.

    Args:
        rules: one gate's rules, checked by `check_rules`.
        evidence: the numbers.
        resamples: bootstrap draws behind every interval.
        seed: seed of those draws.
        on_no_champion: what a margin rule comes to while there is no champion.
        looks: how often a rule on the candidate's few steps may be looked at, with more images each time; every
            look is held to a confidence as much stricter (Bonferroni), see `gates.looks`.

    Returns:
        One outcome a rule, in the rules' order.
    """
    resampling = Resampling(resamples, seed)
    gathered: dict[str, Parts | UnusableMetricError] = {}
    for rule in rules:
        try:
            gathered[rule.id] = gather(rule, evidence, resampling)
        except UnusableMetricError as error:
            gathered[rule.id] = error
    levels = _family_levels(rules, gathered, looks)
    outcomes = []
    for rule in rules:
        parts = gathered[rule.id]
        fields: dict[str, Any]
        if isinstance(parts, UnusableMetricError):
            limit = limits_of(rule)[0]
            fields = {"status": "ERROR", "reason": f"{parts}.", "kind": limit.kind, "bound": limit.bound}
        elif rule.champion_margin is not None and evidence.champion is None:
            fields = _without_champion(rule, parts, on_no_champion)
        elif rule.id in levels:
            fields = decided_on_interval(rule, parts, levels[rule.id])
        else:
            fields = decided_on_value(rule, parts)
        if fields.get("low") is not None:
            fields |= {"resamples": resamples, "seed": seed}
        outcomes.append(_outcome(rule, fields))
    return tuple(outcomes)


def _family_levels(
    rules: Sequence[Rule], gathered: dict[str, Parts | UnusableMetricError], looks: int
) -> dict[str, float]:
    """Holm's confidence for every rule that its interval decides; required and warning rules are two families."""
    levels: dict[str, float] = {}
    for severity in ("required", "warn"):
        family: list[tuple[Rule, float]] = []
        for rule in rules:
            parts = gathered[rule.id]
            if rule.severity == severity and isinstance(parts, Parts) and interval_decides(rule, parts):
                family.append((rule, rule_p_value(rule, parts)))
        # Only what can be looked at again has to share its error out.
        shares = [looks if few_step_setting(rule.metric) else 1 for rule, _ in family]
        asked = [
            1.0 - (1.0 - rule.confidence) / share for (rule, _), share in zip(family, shares, strict=True)
        ]
        used = holm_levels([p for _, p in family], asked)
        levels.update({rule.id: level for (rule, _), level in zip(family, used, strict=True)})
    return levels


_WITHOUT_CHAMPION: dict[WithoutChampion, Status] = {
    "promote": "PASS",
    "needs-approval": "INCONCLUSIVE",
    "reject": "FAIL",
}


def _without_champion(rule: Rule, parts: Parts, on_no_champion: WithoutChampion) -> dict[str, Any]:
    return {
        "status": _WITHOUT_CHAMPION[on_no_champion],
        "reason": f"There is no champion to compare with; gates.on_no_champion says {on_no_champion}.",
        "kind": "margin",
        "decided_by": "policy",
        "bound": limits_of(rule)[0].bound,
        "candidate": parts.deciding[0].candidate,
    }


def _outcome(rule: Rule, fields: dict[str, Any]) -> RuleOutcome:
    outcome = RuleOutcome(
        id=rule.id,
        metric=rule.metric,
        severity=rule.severity,
        better=rule.better,
        **{"decided_by": "none", **fields},
    )
    if rule.severity == "warn" and outcome.status == "FAIL":
        return outcome.model_copy(update={"status": "WARN"})
    return outcome
