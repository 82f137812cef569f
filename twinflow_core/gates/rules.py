"""From rules, metrics and per-image results to outcomes.

A bound on a value is decided on the value, with its interval shown beside it. A margin against the champion
is decided on the interval of the paired difference: PASS if even its bad side is within the margin, FAIL if
even its good side is not, INCONCLUSIVE between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from twinflow_core.gates.estimates import (
    Estimand,
    Estimate,
    NoEstimateError,
    Resampling,
    estimand_of,
)
from twinflow_core.gates.metrics import UnusableMetricError, metric_value
from twinflow_core.gates.outcome import Kind, RuleOutcome, Status
from twinflow_core.gates.samples import ImageSet, PromptScores
from twinflow_core.gates.statistics import holm_levels, one_sided_bounds, p_value
from twinflow_core.params import Rule

AGREEMENT = 1e-4
"""How far a metric may lie from what its own images say: they are written with a few digits."""

ROUNDING = 1e-9

WithoutChampion = Literal["promote", "needs-approval", "reject"]


@dataclass(frozen=True)
class Measurements:
    """One model's numbers: the merged metrics document and the per-image results, as far as there are any."""

    metrics: Mapping[str, Any]
    scores: Mapping[ImageSet, PromptScores] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """What a gate looks at.

    Args:
        candidate: the candidate's measurements, with the reference's among them.
        champion: the champion measured anew by the same evaluator on the same prompts and noise, under the
            keys of a candidate (`candidate.nfe1.score`, images of model "candidate"); None if there is none.
    """

    candidate: Measurements
    champion: Measurements | None = None


def evaluate_rules(
    rules: Sequence[Rule],
    evidence: Evidence,
    *,
    resamples: int,
    seed: int,
    on_no_champion: WithoutChampion,
) -> tuple[RuleOutcome, ...]:
    """Judge every rule. Nothing here raises for bad evidence: what cannot be computed is an ERROR outcome.

    Args:
        rules: one gate's rules, checked by `check_rules`.
        evidence: the numbers.
        resamples: bootstrap draws behind every interval.
        seed: seed of those draws.
        on_no_champion: what a margin rule comes to while there is no champion.

    Returns:
        One outcome a rule, in the rules' order.
    """
    judge = _Judge(evidence, Resampling(resamples, seed), on_no_champion)
    levels = judge.margin_levels(rules)
    return tuple(_as_severity_has_it(judge.outcome(rule, levels.get(rule.id)), rule) for rule in rules)


def _as_severity_has_it(outcome: RuleOutcome, rule: Rule) -> RuleOutcome:
    if rule.severity == "warn" and outcome.status == "FAIL":
        return outcome.model_copy(update={"status": "WARN"})
    return outcome


@dataclass(frozen=True)
class _Judge:
    evidence: Evidence
    resampling: Resampling
    on_no_champion: WithoutChampion

    def margin_levels(self, rules: Sequence[Rule]) -> dict[str, float]:
        """Holm's confidence for every margin rule, by id; required and warning rules are two families."""
        levels: dict[str, float] = {}
        for severity in ("required", "warn"):
            family: list[tuple[Rule, float]] = []
            for rule in rules:
                if rule.severity == severity and rule.champion_margin is not None:
                    try:
                        estimate = self._difference(rule)
                    except NoEstimateError:
                        continue
                    sign = 1.0 if rule.better == "higher" else -1.0
                    family.append((rule, p_value(sign * estimate.draws, -rule.champion_margin - ROUNDING)))
            used = holm_levels([p for _, p in family], [rule.confidence for rule, _ in family])
            levels.update({rule.id: level for (rule, _), level in zip(family, used, strict=True)})
        return levels

    def outcome(self, rule: Rule, margin_level: float | None) -> RuleOutcome:
        try:
            value = metric_value(self.evidence.candidate.metrics, rule.metric)
            estimate, without = self._estimate(rule.metric, self.evidence.candidate, value, "the candidate's")
            if rule.champion_margin is not None:
                return self._margin(rule, rule.champion_margin, value, margin_level)
        except UnusableMetricError as error:
            kind, bound = _asked(rule)
            return _outcome(rule, "ERROR", f"{error}.", kind=kind, bound=bound)
        return self._bound(rule, value, estimate, without)

    def _bound(self, rule: Rule, value: float, estimate: Estimate | None, without: str) -> RuleOutcome:
        kind, bound = _binding(rule, value)
        holds = value >= bound if kind == "min" else value <= bound
        words = {("min", True): "at least", ("min", False): "below", ("max", True): "at most"}
        reason = f"{value:.4g} is {words.get((kind, holds), 'above')} {bound:.4g}"
        interval = self._interval(estimate, rule.confidence)
        if estimate is not None and holds:
            worst = interval["low"] if kind == "min" else interval["high"]
            if worst is not None and (worst < bound if kind == "min" else worst > bound):
                reason += f", though its interval reaches {worst:.4g}"
        return _outcome(
            rule,
            "PASS" if holds else "FAIL",
            f"{reason}{without}.",
            kind=kind,
            decided_by="point",
            value=value,
            bound=bound,
            candidate=value,
            **interval,
        )

    def _margin(self, rule: Rule, margin: float, value: float, level: float | None) -> RuleOutcome:
        _, bound = _asked(rule)
        champion = self.evidence.champion
        if champion is None:
            status: Status = _WITHOUT_CHAMPION[self.on_no_champion]
            reason = f"There is no champion to compare with; gates.on_no_champion says {self.on_no_champion}."
            return _outcome(
                rule, status, reason, kind="margin", decided_by="policy", bound=bound, candidate=value
            )
        try:
            theirs = metric_value(champion.metrics, rule.metric)
        except UnusableMetricError as error:
            raise UnusableMetricError(f"of the champion, {error}") from None
        self._estimate(rule.metric, champion, theirs, "the champion's")
        known: dict[str, Any] = {
            "kind": "margin", "bound": bound, "value": value - theirs, "candidate": value, "champion": theirs,
        }  # fmt: skip
        try:
            estimate = self._difference(rule)
        except NoEstimateError as error:
            return self._margin_without_images(rule, margin, known, str(error))
        interval = self._interval(estimate, level or rule.confidence)
        if interval["low"] is None or interval["high"] is None:
            raise UnusableMetricError(
                f"{rule.metric}: {self.resampling.resamples} resamples are too few for an interval"
            )
        sign = 1.0 if rule.better == "higher" else -1.0
        bad, good = sorted((sign * interval["low"], sign * interval["high"]))
        verdict: Status = (
            "PASS" if bad >= -margin - ROUNDING else "FAIL" if good < -margin - ROUNDING else "INCONCLUSIVE"
        )
        return _outcome(
            rule,
            verdict,
            _margin_reason(bad, good, margin, verdict),
            decided_by="interval",
            **known,
            **interval,
        )

    def _margin_without_images(
        self, rule: Rule, margin: float, known: dict[str, Any], why: str
    ) -> RuleOutcome:
        if self.evidence.candidate.metrics.get("scorer") != "distribution":
            raise UnusableMetricError(f"{rule.metric} cannot be compared with the champion's: {why}")
        gain = known["value"] if rule.better == "higher" else -known["value"]
        holds = gain >= -margin - ROUNDING
        reason = f"{_better(gain)} than the champion ({margin:.3g} worse is allowed); no interval: {why}."
        return _outcome(rule, "PASS" if holds else "FAIL", reason, decided_by="point", **known)

    def _difference(self, rule: Rule) -> Estimate:
        """Candidate minus champion on the same prompts."""
        estimand = estimand_of(rule.metric)
        champion = self.evidence.champion
        if champion is None or estimand is None or estimand.contrast != "none":
            raise NoEstimateError(f"{rule.metric} is not made of single images' scores")
        ours, theirs = self.evidence.candidate.scores, champion.scores
        if estimand.of not in ours or estimand.of not in theirs:
            raise NoEstimateError(f"there are no images of both models at {estimand.of[1]}")
        return self.resampling.difference(ours[estimand.of], theirs[estimand.of], estimand.task)

    def _estimate(
        self, metric: str, measured: Measurements, value: float, whose: str
    ) -> tuple[Estimate | None, str]:
        """The metric's estimate from images if there is one, and else why not, as an ending of a sentence."""
        estimand: Estimand | None = estimand_of(metric)
        if estimand is None:
            return None, ""
        try:
            estimate = self.resampling.of(estimand, measured.scores)
        except NoEstimateError as error:
            return None, f"; no interval: {error}"
        # Written so that a NaN among the images' scores counts as disagreement.
        if not abs(estimate.value - value) <= AGREEMENT:
            raise UnusableMetricError(
                f"{metric} is {value:.6g} in {whose} metrics but its images give {estimate.value:.6g}"
            )
        return estimate, ""

    def _interval(self, estimate: Estimate | None, level: float) -> dict[str, Any]:
        if estimate is None:
            return {"low": None, "high": None}
        low, high = one_sided_bounds(estimate.draws, level)
        if low == float("-inf"):
            return {"low": None, "high": None}
        return {
            "low": low,
            "high": high,
            "level": level,
            "prompts": estimate.prompts,
            "images": estimate.images,
            "resamples": self.resampling.resamples,
            "seed": self.resampling.seed,
        }


_WITHOUT_CHAMPION: dict[WithoutChampion, Status] = {
    "promote": "PASS",
    "needs-approval": "INCONCLUSIVE",
    "reject": "FAIL",
}


def _outcome(rule: Rule, status: Status, reason: str, **fields: Any) -> RuleOutcome:
    return RuleOutcome(
        id=rule.id,
        metric=rule.metric,
        severity=rule.severity,
        better=rule.better,
        status=status,
        reason=reason,
        **{"decided_by": "none", **fields},
    )


def _asked(rule: Rule) -> tuple[Kind, float | None]:
    """The kind of a rule and its bound, before there is a value."""
    if rule.champion_margin is not None:
        return "margin", -rule.champion_margin if rule.better == "higher" else rule.champion_margin
    return ("min", rule.min) if rule.min is not None else ("max", rule.max)


def _binding(rule: Rule, value: float) -> tuple[Kind, float]:
    """The bound that the value violates or comes nearest to."""
    sides: list[tuple[float, Kind, float]] = []
    if rule.min is not None:
        sides.append((value - rule.min, "min", rule.min))
    if rule.max is not None:
        sides.append((rule.max - value, "max", rule.max))
    _, kind, bound = min(sides)
    return kind, bound


def _margin_reason(bad: float, good: float, margin: float, status: Status) -> str:
    """Both bounds in words; positive is better than the champion."""
    allowed = f"{margin:.3g} worse is allowed"
    if status == "INCONCLUSIVE":
        span = f"Between {_better(bad)} and {_better(good)} than the champion"
        return f"{span}: too few images to tell ({allowed})."
    bound = bad if status == "PASS" else good
    limit = "at most" if (bound <= 0) == (status == "PASS") else "at least"
    return f"{limit.capitalize()} {_better(bound)} than the champion ({allowed})."


def _better(difference: float) -> str:
    return f"{abs(difference):.3g} {'better' if difference > 0 else 'worse'}"
