"""Outcomes of rules: numbers at the edge, evidence that cannot be used, the champion, families of rules."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gates.measured import candidate_at, measurements, sample_table, score
from twinflow_core.gates.checks import at_every_size
from twinflow_core.gates.evidence import Evidence, Measurements
from twinflow_core.gates.outcome import RuleOutcome
from twinflow_core.gates.rules import WithoutChampion, evaluate_rules
from twinflow_core.gates.samples import at_size, prompt_scores
from twinflow_core.params import Rule

SCORE = "candidate.nfe1.score"
KEY = ("candidate", "nfe1")


def judge(
    rules: Rule | list[Rule],
    candidate: Measurements,
    champion: Measurements | None = None,
    on_no_champion: WithoutChampion = "needs-approval",
) -> list[RuleOutcome]:
    listed = rules if isinstance(rules, list) else [rules]
    evidence = Evidence(candidate, champion)
    return list(evaluate_rules(listed, evidence, resamples=500, seed=3, on_no_champion=on_no_champion))


def numbers(document: dict[str, Any]) -> Measurements:
    return Measurements({"scorer": "shapes", **document})


@pytest.mark.parametrize(
    ("bounds", "value", "status", "kind", "bound"),
    [
        ({"min": 0.8}, 0.8, "PASS", "min", 0.8),
        ({"min": 0.8}, 0.7999, "FAIL", "min", 0.8),
        ({"max": 5.0}, 5.0, "PASS", "max", 5.0),
        ({"max": 5.0}, 5.1, "FAIL", "max", 5.0),
        ({"min": 0.0, "max": 1.0}, 0.9, "PASS", "max", 1.0),
        ({"min": 0.0, "max": 1.0}, -0.1, "FAIL", "min", 0.0),
    ],
)
def test_a_bound_is_decided_on_the_value(
    bounds: dict[str, float], value: float, status: str, kind: str, bound: float
) -> None:
    rule = Rule.model_validate({"id": "parity", "metric": "parity.max_abs", **bounds})
    (outcome,) = judge(rule, numbers({"parity": {"max_abs": value}}))
    assert (outcome.status, outcome.kind, outcome.bound) == (status, kind, bound)
    assert (outcome.value, outcome.decided_by, outcome.low) == (value, "point", None)


def test_a_rule_at_another_size_is_decided_on_the_interval_of_that_sizes_images() -> None:
    square = {("candidate", "nfe1"): 0.9, ("reference", "many"): 0.9}
    wide = {("candidate", "nfe1"): 0.3, ("reference", "many"): 0.9}
    here, there = measurements(sample_table(square)), measurements(sample_table(wide, seed=1))
    both = Measurements(
        {**here.metrics, "sizes": {"64x32": there.metrics}},
        {**here.scores, **at_size(there.scores, "64x32")},
    )
    bound = {"id": "ratio", "metric": "ratio.score_nfe1", "min": 0.7}
    rules = at_every_size([Rule.model_validate(bound)], ["64x32"])
    at_square, at_wide = judge(list(rules), both)
    assert (at_square.status, at_square.decided_by) == ("PASS", "interval")
    assert (at_wide.id, at_wide.status, at_wide.decided_by) == ("ratio@64x32", "FAIL", "interval")
    assert at_wide.value == pytest.approx(there.metrics["ratio"]["score_nfe1"])


def test_a_rule_that_warns_never_fails() -> None:
    rule = Rule(id="latency", metric="serving.p95_ms", max=1, severity="warn")
    (outcome,) = judge(rule, numbers({"serving": {"p95_ms": 2}}))
    assert outcome.status == "WARN"
    assert not outcome.blocks


def test_a_score_has_its_interval() -> None:
    candidate = candidate_at(0.7)
    (outcome,) = judge(Rule(id="score", metric=SCORE, min=0.69), candidate)
    assert outcome.low is not None
    assert outcome.high is not None
    assert outcome.value is not None
    assert outcome.low < outcome.value < outcome.high
    assert (outcome.prompts, outcome.images, outcome.resamples, outcome.seed) == (96, 384, 500, 3)


@pytest.mark.parametrize(
    ("bound", "status"),
    [({"min": 0.55}, "PASS"), ({"min": 0.7}, "INCONCLUSIVE"), ({"min": 0.85}, "FAIL"),
     ({"max": 0.85}, "PASS"), ({"max": 0.7}, "INCONCLUSIVE"), ({"max": 0.55}, "FAIL"),
     ({"min": 0.55, "max": 0.85}, "PASS"), ({"min": 0.7, "max": 0.85}, "INCONCLUSIVE")],
)  # fmt: skip
def test_the_interval_decides_a_bound_not_the_point(bound: dict[str, float], status: str) -> None:
    rule = Rule.model_validate({"id": "score", "metric": SCORE, **bound})
    (outcome,) = judge(rule, candidate_at(0.7))
    assert (outcome.status, outcome.decided_by) == (status, "interval")
    if status == "PASS":
        low, high = outcome.low or 0.0, outcome.high or 1.0
        assert bound.get("min", 0.0) <= low < high <= bound.get("max", 1.0)


def test_a_bound_may_ask_for_the_value_alone_and_says_how_far_the_interval_reaches() -> None:
    candidate = candidate_at(0.7)
    value = candidate.metrics["candidate"]["nfe1"]["score"]
    (outcome,) = judge(Rule(id="s", metric=SCORE, min=value - 0.001, decide_on="value"), candidate)
    assert (outcome.status, outcome.decided_by) == ("PASS", "point")
    assert "reaches past it" in outcome.reason


def test_a_task_and_a_ratio_have_theirs() -> None:
    rates = {KEY: 0.7, ("reference", "many"): 0.9}
    rules = [
        Rule(id="counting", metric="candidate.nfe1.tasks.counting", min=0.1),
        Rule(id="ratio", metric="ratio.score_nfe1", min=0.1),
    ]
    counting, ratio = judge(rules, measurements(sample_table(rates)))
    assert counting.prompts == 16
    assert ratio.low is not None
    assert ratio.value is not None
    assert ratio.low < ratio.value


@given(st.sampled_from([float("nan"), float("inf"), -float("inf"), True, None, "0.9", [0.9], {}]))
def test_what_is_not_a_number_never_passes(value: object) -> None:
    rules = [
        Rule(id="min", metric=SCORE, min=-1e300),
        Rule(id="max", metric=SCORE, max=1e300),
        Rule(id="margin", metric=SCORE, champion_margin=1.0),
    ]
    bad = numbers({"candidate": {"nfe1": {"score": value}}})
    good = candidate_at(0.5, prompts_per_task=2)
    for candidate, champion in [(bad, None), (bad, good), (numbers({}), good), (numbers({}), None)]:
        outcomes = judge(rules, candidate, champion, "promote")
        assert [outcome.status for outcome in outcomes] == ["ERROR"] * 3
        assert all(outcome.blocks for outcome in outcomes)
    (outcome,) = judge(rules[2], good, bad, "promote")
    assert outcome.status == "ERROR"


def test_one_image_without_a_verdict_never_passes() -> None:
    table = sample_table({KEY: 1.0}, prompts_per_task=4)
    rows = table.to_pylist()
    rows[0]["correct"] = None
    broken = Measurements(measurements(table).metrics, prompt_scores(pa.Table.from_pylist(rows)))
    whole = measurements(table)
    bound, margin = Rule(id="b", metric=SCORE, min=0.1), Rule(id="m", metric=SCORE, champion_margin=0.5)
    assert [outcome.status for outcome in judge([bound, margin], broken, whole)] == ["ERROR", "ERROR"]
    assert judge(margin, whole, broken)[0].status == "ERROR"


def test_metrics_that_their_images_do_not_bear_out_are_an_error() -> None:
    candidate = candidate_at(0.5)
    metrics: Any = copy.deepcopy(candidate.metrics)
    metrics["candidate"]["nfe1"]["score"] = 0.95
    (outcome,) = judge(Rule(id="score", metric=SCORE, min=0.9), Measurements(metrics, candidate.scores))
    assert outcome.status == "ERROR"
    assert "its images give" in outcome.reason


@pytest.mark.parametrize(
    ("rates", "margin", "status"),
    [((0.9, 0.5), 0.03, "PASS"), ((0.5, 0.9), 0.03, "FAIL"), ((0.7, 0.72), 0.03, "INCONCLUSIVE")],
)
def test_a_margin_is_decided_on_the_interval(rates: tuple[float, float], margin: float, status: str) -> None:
    candidate, champion = candidate_at(rates[0], seed=1), candidate_at(rates[1], seed=2)
    (outcome,) = judge(Rule(id="not-worse", metric=SCORE, champion_margin=margin), candidate, champion)
    assert outcome.status == status
    assert outcome.decided_by == "interval"
    assert outcome.bound == -margin


def test_a_model_is_never_worse_than_itself() -> None:
    same = candidate_at(0.6)
    (outcome,) = judge(Rule(id="not-worse", metric=SCORE, champion_margin=0.0), same, same)
    assert (outcome.status, outcome.low, outcome.high) == ("PASS", 0.0, 0.0)


def test_where_lower_is_better_the_margin_lies_above() -> None:
    worse, better = candidate_at(0.9, seed=1), candidate_at(0.4, seed=2)
    rule = Rule(id="errors", metric=SCORE, champion_margin=0.05, better="lower")
    assert judge(rule, better, worse)[0].status == "PASS"
    (outcome,) = judge(rule, worse, better)
    assert (outcome.status, outcome.bound) == ("FAIL", 0.05)


ORDER = ["FAIL", "INCONCLUSIVE", "PASS"]


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 0.5), st.floats(0, 0.5), st.integers(0, 20))
def test_a_wider_margin_is_never_harder(margin: float, more: float, seed: int) -> None:
    candidate = candidate_at(0.6, prompts_per_task=4, seed=seed)
    champion = candidate_at(0.7, prompts_per_task=4, seed=seed + 100)
    ranks = [
        ORDER.index(judge(Rule(id="m", metric=SCORE, champion_margin=each), candidate, champion)[0].status)
        for each in (margin, margin + more)
    ]
    assert ranks[0] <= ranks[1]


def test_prompts_that_differ_cannot_be_paired() -> None:
    rule = Rule(id="not-worse", metric=SCORE, champion_margin=0.5)
    (outcome,) = judge(rule, candidate_at(0.9), candidate_at(0.5, prompts_per_task=8))
    assert outcome.status == "ERROR"
    assert "same prompts" in outcome.reason


def test_a_champion_without_images_is_an_error_where_images_are_judged() -> None:
    champion = candidate_at(0.5)
    rule = Rule(id="not-worse", metric=SCORE, champion_margin=0.5)
    assert judge(rule, candidate_at(0.9), Measurements(champion.metrics))[0].status == "ERROR"


@pytest.mark.parametrize(("value", "status"), [(0.68, "PASS"), (0.5, "FAIL")])
def test_a_scorer_of_whole_sets_decides_on_points_and_says_so(value: float, status: str) -> None:
    table = sample_table({KEY: 0.5}, prompts_per_task=2)
    rows = [{**row, "correct": float("nan")} for row in table.to_pylist()]
    scores = prompt_scores(pa.Table.from_pylist(rows))

    def model(value: float) -> Measurements:
        return Measurements({"scorer": "distribution", "candidate": {"nfe1": {"score": value}}}, scores)

    rules = [Rule(id="m", metric=SCORE, champion_margin=0.03), Rule(id="b", metric=SCORE, min=0.1)]
    margin, bound = judge(rules, model(value), model(0.7))
    assert (margin.status, margin.decided_by, margin.low) == (status, "point", None)
    assert "does not judge single images" in margin.reason
    assert "does not judge single images" in bound.reason


@pytest.mark.parametrize(
    ("policy", "status"), [("promote", "PASS"), ("needs-approval", "INCONCLUSIVE"), ("reject", "FAIL")]
)
def test_without_a_champion_the_policy_decides_and_is_named(policy: WithoutChampion, status: str) -> None:
    rule = Rule(id="not-worse", metric=SCORE, champion_margin=0.03)
    (outcome,) = judge(rule, candidate_at(0.7, prompts_per_task=2), None, policy)
    assert (outcome.status, outcome.decided_by) == (status, "policy")
    assert f"on_no_champion says {policy}" in outcome.reason


def test_more_margin_rules_ask_for_more_certainty() -> None:
    candidate, champion = candidate_at(0.8, seed=1), candidate_at(0.78, seed=2)
    rules = [Rule(id=f"m{i}", metric=SCORE, champion_margin=0.2 - 0.02 * i) for i in range(4)]
    alone = judge(rules[3], candidate, champion)[0]
    family = judge(rules, candidate, champion)
    assert alone.level == 0.95
    assert max(outcome.level or 0 for outcome in family) == pytest.approx(1 - 0.05 / 4)
    warn = [rule.model_copy(update={"severity": "warn"}) for rule in rules[:3]]
    assert judge([*warn, rules[3]], candidate, champion)[3].level == 0.95


def test_order_of_images_changes_nothing() -> None:
    table = sample_table({KEY: 0.7, ("reference", "many"): 0.9}, prompts_per_task=4)
    shuffled = table.take(np.random.default_rng(0).permutation(table.num_rows))
    champion = candidate_at(0.7, prompts_per_task=4, seed=9)
    rules = [
        Rule(id="m", metric=SCORE, champion_margin=0.05),
        Rule(id="r", metric="ratio.score_nfe1", min=0.5),
    ]
    assert judge(rules, measurements(table), champion) == judge(rules, measurements(shuffled), champion)


def test_one_prompt_a_task_gives_no_interval_and_no_margin() -> None:
    candidate = candidate_at(0.9, prompts_per_task=1)
    bound, margin = judge(
        [Rule(id="b", metric=SCORE, min=0.0), Rule(id="m", metric=SCORE, champion_margin=1.0)],
        candidate,
        candidate,
    )
    assert (bound.status, margin.status) == ("ERROR", "ERROR")
    assert "prompts_per_task" in bound.reason
    (on_value,) = judge(Rule(id="b", metric=SCORE, min=0.0, decide_on="value"), candidate)
    assert (on_value.status, on_value.decided_by, on_value.low) == ("PASS", "point", None)


@pytest.mark.parametrize("prompts_per_task", [16, 5])
def test_the_served_package_is_compared_on_the_prompts_it_was_given(prompts_per_task: int) -> None:
    table = sample_table({KEY: 0.7, ("served", "nfe1"): 0.7})
    rows = [
        row
        for row in table.to_pylist()
        if row["model"] == "candidate" or int(row["prompt_id"][-3:]) < prompts_per_task
    ]
    scores = prompt_scores(pa.Table.from_pylist(rows))
    served = scores["served", "nfe1"]
    difference = score(served) - score(scores[KEY].restricted(served.prompt_ids))
    metrics = {**measurements(table).metrics, "serving": {"score_difference": difference}}
    rule = Rule(id="served", metric="serving.score_difference", min=-0.5)
    (outcome,) = judge(rule, Measurements(metrics, scores))
    assert outcome.prompts == 6 * prompts_per_task
    assert outcome.low is not None
    assert outcome.low < difference
