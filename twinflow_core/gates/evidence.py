"""What a gate looks at, and out of it what one rule is decided on: parts, each a number with its draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from twinflow_core.gates.estimates import (
    Estimand,
    Estimate,
    NoEstimateError,
    NoSpreadError,
    Resampling,
    estimand_of,
)
from twinflow_core.gates.metrics import UnusableMetricError, metric_value
from twinflow_core.gates.samples import ImageSet, PromptScores
from twinflow_core.params import Rule

AGREEMENT = 1e-4
"""How far a metric may lie from what its own images say: they are written with a few digits."""


@dataclass(frozen=True)
class Measurements:
    """One model's numbers: the merged metrics document and the per-image results, as far as there are any."""

    metrics: Mapping[str, Any]
    scores: Mapping[ImageSet, PromptScores] = field(default_factory=dict)

    def estimand(self, metric: str) -> Estimand | None:
        """What a metric is made of; see `estimand_of`."""
        served = (setting for model, setting in self.scores if model == "served")
        return estimand_of(metric, next(served, "nfe1"))


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


@dataclass(frozen=True, eq=False)
class Part:
    """A number that a rule is held against.

    Args:
        name: the slice it is of; None for all prompts, or the mean of slices.
        value: the metric, or for a margin candidate minus champion.
        candidate, champion: the metric of either; the champion's for a margin alone.
        estimate: `value` with its draws; None where there is no interval.
    """

    name: str | None
    value: float
    candidate: float
    champion: float | None
    estimate: Estimate | None


@dataclass(frozen=True)
class Parts:
    """All that one rule is decided on.

    Args:
        deciding: the rule holds if it holds for each of these.
        slices: every slice that the rule names.
        without: why there is no interval, as an ending of a sentence; empty if nobody would expect one.
    """

    deciding: tuple[Part, ...]
    slices: tuple[Part, ...] = ()
    without: str = ""


def gather(rule: Rule, evidence: Evidence, resampling: Resampling) -> Parts:
    """The numbers that a rule is decided on. A margin without a champion has the candidate's alone.

    Raises:
        UnusableMetricError: the metric or the champion's is no finite number or not what its images say, or
            its images should give an interval and do not.
    """
    ours = metric_value(evidence.candidate.metrics, rule.metric)
    estimate, without = _whole(rule, evidence.candidate, resampling, ours, "the candidate's")
    if rule.champion_margin is None:
        if rule.slices is None:
            return Parts((Part(None, ours, ours, None, estimate),), without=without)
        return _by_slice(rule, _slices(rule, evidence.candidate, resampling), None)
    champion = evidence.champion
    if champion is None:
        return Parts((Part(None, ours, ours, None, None),))
    try:
        theirs = metric_value(champion.metrics, rule.metric)
    except UnusableMetricError as error:
        raise UnusableMetricError(f"of the champion, {error}") from None
    other, _ = _whole(rule, champion, resampling, theirs, "the champion's")
    if estimate is None or other is None:
        return Parts((Part(None, ours - theirs, ours, theirs, None),), without=without)
    _require_pairs(rule, evidence.candidate, champion)
    if rule.slices is not None:
        first, second = (_slices(rule, each, resampling) for each in (evidence.candidate, champion))
        return _by_slice(rule, first, second)
    return Parts((Part(None, ours - theirs, ours, theirs, estimate.minus(other)),))


_BySlice = tuple[dict[str, Estimate], Estimate]


def _by_slice(rule: Rule, ours: _BySlice, theirs: _BySlice | None) -> Parts:
    """Parts of a rule over slices: each slice decides, or their mean does."""
    slices = tuple(_part(name, each, theirs[0][name] if theirs else None) for name, each in ours[0].items())
    if rule.reduce == "worst":
        return Parts(slices, slices)
    return Parts((_part(None, ours[1], theirs[1] if theirs else None),), slices)


def _part(name: str | None, ours: Estimate, theirs: Estimate | None) -> Part:
    if theirs is None:
        return Part(name, ours.value, ours.value, None, ours)
    difference = ours.minus(theirs)
    return Part(name, difference.value, ours.value, theirs.value, difference)


def _whole(
    rule: Rule, measured: Measurements, resampling: Resampling, value: float, whose: str
) -> tuple[Estimate | None, str]:
    """The metric's estimate over all prompts if there is one, else why not, as an ending of a sentence."""
    estimand = measured.estimand(rule.metric)
    if estimand is None:
        return None, ""
    try:
        estimate = resampling.of(estimand, measured.scores)
    except NoEstimateError as error:
        on_value = rule.decide_on == "value" and isinstance(error, NoSpreadError)
        if on_value or measured.metrics.get("scorer") == "distribution":
            return None, f"; no interval: {error}"
        raise UnusableMetricError(f"{rule.metric} has no interval: {error}") from None
    # Written so that a NaN among the images' scores counts as disagreement.
    if not abs(estimate.value - value) <= AGREEMENT:
        raise UnusableMetricError(
            f"{rule.metric} is {value:.6g} in {whose} metrics but its images give {estimate.value:.6g}"
        )
    return estimate, ""


def _slices(rule: Rule, measured: Measurements, resampling: Resampling) -> _BySlice:
    estimand = measured.estimand(rule.metric)
    if estimand is None or rule.slices is None:
        raise UnusableMetricError(f"{rule.metric} is not made of single images' scores")
    try:
        each, mean = resampling.of_slices(estimand, rule.slices, measured.scores)
    except NoEstimateError as error:
        raise UnusableMetricError(f"{rule.metric} by slice: {error}") from None
    if not all(abs(estimate.value) < float("inf") for estimate in each.values()):
        raise UnusableMetricError(f"{rule.metric} by slice: an image has no verdict")
    return each, mean


def _require_pairs(rule: Rule, ours: Measurements, theirs: Measurements) -> None:
    estimand = ours.estimand(rule.metric)
    if estimand is None or ours.scores[estimand.of].design != theirs.scores[estimand.of].design:
        raise UnusableMetricError(
            f"{rule.metric} cannot be compared with the champion's: "
            "the two models were not given the same prompts and images a prompt"
        )
