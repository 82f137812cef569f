"""A second look: rules that the images at hand cannot decide are judged once more on a larger set.

Each look is held to half of the error that a rule allows (Bonferroni), so both together keep to it, whatever
the images of the two looks have in common. Rules that the first look settled stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twinflow_core.gates.estimates import few_step_setting
from twinflow_core.gates.evidence import Evidence
from twinflow_core.gates.outcome import RuleOutcome
from twinflow_core.gates.rules import evaluate_rules
from twinflow_core.params import Rule

LOOKS = 2

DrawMore = Callable[[tuple[str, ...]], Evidence]
"""Settings (`nfe1`, ..) to evidence that holds the candidate's and the champion's larger sets at them."""


def judge_in_looks(
    rules: Sequence[Rule], evidence: Evidence, draw_more: DrawMore | None, **options: Any
) -> tuple[RuleOutcome, ...]:
    """Judge every rule, and what stays open on more images.

    Args:
        rules, evidence, options: as for `evaluate_rules`.
        draw_more: makes the larger set; called only if a required rule is open and none is lost. None if
            there is none to be had: then the one look may spend all of the error.

    Returns:
        One outcome a rule, in the rules' order.
    """
    if draw_more is None:
        return evaluate_rules(rules, evidence, **options)
    first = evaluate_rules(rules, evidence, looks=LOOKS, **options)
    open_rules = {
        rule.id: setting
        for rule, outcome in zip(rules, first, strict=True)
        if outcome.status == "INCONCLUSIVE"
        and outcome.decided_by == "interval"
        and (setting := few_step_setting(rule.metric)) is not None
    }
    required = [outcome for outcome in first if outcome.severity == "required"]
    lost = any(outcome.status in ("FAIL", "ERROR") for outcome in required)
    if lost or not any(outcome.id in open_rules for outcome in required):
        return first
    more = draw_more(tuple(sorted(set(open_rules.values()))))
    # All rules that the larger set can decide form the family again, not only those still open.
    again = [rule for rule in rules if few_step_setting(rule.metric) in open_rules.values()]
    second = {each.id: each for each in evaluate_rules(again, more, looks=LOOKS, **options)}
    return tuple(
        second[each.id].model_copy(update={"look": 2}) if each.id in open_rules else each for each in first
    )
