"""From the numbers of one rule to its outcome: the interval decides wherever there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from twinflow_core.gates.evidence import Part, Parts
from twinflow_core.gates.outcome import Kind, SliceOutcome, Status
from twinflow_core.gates.statistics import one_sided_bounds, p_value
from twinflow_core.params import Rule

ROUNDING = 1e-9
_WORST_FIRST: tuple[Status, ...] = ("FAIL", "INCONCLUSIVE", "PASS")


@dataclass(frozen=True)
class Limit:
    """A side of a rule: `sign` is +1 if values must not lie below `bound`, -1 if not above."""

    kind: Kind
    sign: float
    bound: float

    def slack(self, value: float) -> float:
        """How far a value lies on the allowed side."""
        return self.sign * (value - self.bound)


@dataclass(frozen=True)
class _Finding:
    """One part held against one limit; `low` and `high` bound the part's value."""

    part: Part
    limit: Limit
    status: Status
    slack: float
    low: float | None = None
    high: float | None = None


def limits_of(rule: Rule) -> tuple[Limit, ...]:
    """What a rule asks for; a margin asks that the difference is not too far on the bad side."""
    if rule.champion_margin is not None:
        sign = 1.0 if rule.better == "higher" else -1.0
        return (Limit("margin", sign, -sign * rule.champion_margin),)
    sides = (("min", 1.0, rule.min), ("max", -1.0, rule.max))
    return tuple(Limit(kind, sign, bound) for kind, sign, bound in sides if bound is not None)  # type: ignore[arg-type]


def interval_decides(rule: Rule, parts: Parts) -> bool:
    """Whether every number that the rule is decided on has an interval, and the rule asks for it."""
    on_value = rule.decide_on == "value" and rule.champion_margin is None
    return not on_value and all(part.estimate is not None for part in parts.deciding)


def rule_p_value(rule: Rule, parts: Parts) -> float:
    """The smallest 1 - level at which the rule passes: the largest of its parts', as all must pass."""
    return max(
        p_value(limit.sign * (part.estimate.draws - limit.bound), -ROUNDING, part.estimate.freedom)
        for part in parts.deciding
        for limit in limits_of(rule)
        if part.estimate is not None
    )


def decided_on_interval(rule: Rule, parts: Parts, level: float) -> dict[str, Any]:
    """The fields of the outcome of a rule whose numbers have intervals.

    Args:
        rule: the rule.
        parts: its numbers.
        level: the confidence that the bad side is held to. Of several parts one that fails fails the rule,
            so the good side is held to a confidence as much stricter as there are parts.
    """
    strict = 1.0 - (1.0 - level) / len(parts.deciding)
    found = [_held(part, limit, level, strict) for part in parts.deciding for limit in limits_of(rule)]
    worst = min(found, key=lambda each: (_WORST_FIRST.index(each.status), each.slack))
    reason = _in_words(rule, worst)
    return {
        **_numbers(worst),
        "status": worst.status,
        "decided_by": "interval",
        "reason": f"Slice {worst.part.name}: {reason}" if worst.part.name else reason,
        "slices": slice_outcomes(parts.slices, level),
        "level": level,
    }


def decided_on_value(rule: Rule, parts: Parts) -> dict[str, Any]:
    """The fields of the outcome of a rule that the point values decide; an interval is shown beside it."""
    found = [_at_value(part, limit) for part in parts.deciding for limit in limits_of(rule)]
    worst = min(found, key=lambda each: each.slack)
    part, limit, held = worst.part, worst.limit, worst.status == "PASS"
    if limit.kind == "margin":
        reason = f"{_better(limit.sign * part.value)} than the champion ({_allowed(rule)})"
    else:
        reason = f"{part.value:.4g} is {_compared(limit, held)} {limit.bound:.4g}"
    fields = _numbers(worst)
    if part.estimate is not None:
        low, high = one_sided_bounds(part.estimate.draws, rule.confidence, part.estimate.freedom)
        fields |= {"low": _finite(low), "high": _finite(high), "level": rule.confidence}
        if held and min(limit.slack(low), limit.slack(high)) < 0:
            reason += ", though its interval reaches past it"
    name = f"Slice {part.name}: " if part.name else ""
    return {
        **fields,
        "status": worst.status,
        "decided_by": "point",
        "reason": f"{name}{reason}{parts.without}.",
        "slices": slice_outcomes(parts.slices, rule.confidence),
    }


def slice_outcomes(parts: Sequence[Part], level: float) -> tuple[SliceOutcome, ...]:
    """The record of every slice, with its bounds at a level."""
    outcomes = []
    for part in parts:
        if part.name is None or part.estimate is None:
            raise ValueError("a slice has a name and draws")
        low, high = one_sided_bounds(part.estimate.draws, level, part.estimate.freedom)
        outcomes.append(
            SliceOutcome(
                name=part.name,
                value=part.value,
                low=_finite(low),
                high=_finite(high),
                candidate=part.candidate,
                champion=part.champion,
                prompts=part.estimate.prompts,
                images=part.estimate.images,
            )
        )
    return tuple(outcomes)


def _held(part: Part, limit: Limit, level: float, strict: float) -> _Finding:
    if part.estimate is None:
        raise ValueError("only a part with draws is decided on its interval")
    slack = limit.sign * (part.estimate.draws - limit.bound)
    freedom = part.estimate.freedom
    bad, good = one_sided_bounds(slack, level, freedom)[0], one_sided_bounds(slack, strict, freedom)[1]
    status: Status = "PASS" if bad >= -ROUNDING else "FAIL" if good < -ROUNDING else "INCONCLUSIVE"
    low, high = sorted(limit.bound + limit.sign * each for each in (bad, good))
    return _Finding(part, limit, status, good if status == "FAIL" else bad, _finite(low), _finite(high))


def _at_value(part: Part, limit: Limit) -> _Finding:
    slack = limit.slack(part.value)
    tolerance = ROUNDING if limit.kind == "margin" else 0.0
    return _Finding(part, limit, "PASS" if slack >= -tolerance else "FAIL", slack)


def _numbers(found: _Finding) -> dict[str, Any]:
    part = found.part
    counts = {"prompts": part.estimate.prompts, "images": part.estimate.images} if part.estimate else {}
    return {
        "kind": found.limit.kind,
        "bound": found.limit.bound,
        "value": part.value,
        "candidate": part.candidate,
        "champion": part.champion,
        "slice": part.name,
        "low": found.low,
        "high": found.high,
        **counts,
    }


def _in_words(rule: Rule, found: _Finding) -> str:
    """The interval against the limit, for people."""
    limit, low, high = found.limit, found.low, found.high
    if low is None or high is None:
        return "Too few prompts, or too few resamples, for an interval at this confidence."
    if limit.kind == "margin":
        bad, good = sorted((limit.sign * low, limit.sign * high))
        return _margin_in_words(rule, bad, good, found.status)
    asked = f"{'at least' if limit.kind == 'min' else 'at most'} {limit.bound:.4g} is asked"
    if found.status == "INCONCLUSIVE":
        return f"Between {low:.4g} and {high:.4g}: too few images to tell ({asked})."
    above = (limit.kind == "min") == (found.status == "PASS")
    return f"{f'At least {low:.4g}' if above else f'At most {high:.4g}'} by its interval ({asked})."


def _margin_in_words(rule: Rule, bad: float, good: float, status: Status) -> str:
    """Both bounds in words; positive is better than the champion."""
    if status == "INCONCLUSIVE":
        span = f"Between {_better(bad)} and {_better(good)} than the champion"
        return f"{span}: too few images to tell ({_allowed(rule)})."
    bound = bad if status == "PASS" else good
    limit = "at most" if (bound <= 0) == (status == "PASS") else "at least"
    return f"{limit.capitalize()} {_better(bound)} than the champion ({_allowed(rule)})."


def _allowed(rule: Rule) -> str:
    return f"{rule.champion_margin:.3g} worse is allowed"


def _compared(limit: Limit, held: bool) -> str:
    if limit.kind == "min":
        return "at least" if held else "below"
    return "at most" if held else "above"


def _better(difference: float) -> str:
    return f"{abs(difference):.3g} {'better' if difference > 0 else 'worse'}"


def _finite(bound: float) -> float | None:
    return float(bound) if np.isfinite(bound) else None
