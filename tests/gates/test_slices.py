"""Rules over slices: the worst of them or their mean, each with an interval of its own."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tests.gates.measured import candidate_at, measurements, sample_table
from twinflow_core.gates.evidence import Evidence, Measurements
from twinflow_core.gates.metrics import TASKS
from twinflow_core.gates.outcome import RuleOutcome
from twinflow_core.gates.rules import evaluate_rules
from twinflow_core.params import Rule

KEY, MANY = ("candidate", "nfe1"), ("reference", "many")
SCORE = "candidate.nfe1.score"


def judge(rule: Rule, candidate: Measurements, champion: Measurements | None = None) -> RuleOutcome:
    evidence = Evidence(candidate, champion)
    return evaluate_rules([rule], evidence, resamples=1000, seed=3, on_no_champion="reject")[0]


def with_task_wrong(task: str, seed: int = 1) -> Measurements:
    """Right on nearly all images, but on none of one task."""
    rows = sample_table({KEY: 0.95}, seed=seed).to_pylist()
    return measurements(
        pa.Table.from_pylist(
            [{**row, "correct": 0.0 if row["task"] == task else row["correct"]} for row in rows]
        )
    )


def rule(**fields: object) -> Rule:
    return Rule.model_validate({"id": "r", "metric": SCORE, "slices": list(TASKS), **fields})


def test_one_bad_task_fails_the_worst_and_hides_in_the_mean() -> None:
    candidate = with_task_wrong("position")
    worst = judge(rule(min=0.5), candidate)
    assert (worst.status, worst.slice, worst.value, worst.decided_by) == ("FAIL", "position", 0.0, "interval")
    assert "Slice position" in worst.reason
    mean = judge(rule(min=0.5, reduce="mean"), candidate)
    assert (mean.status, mean.slice) == ("PASS", None)
    for outcome in (worst, mean):
        assert [each.name for each in outcome.slices] == list(TASKS)
        assert sum(each.images for each in outcome.slices) == 6 * 16 * 4


def test_the_mean_of_all_tasks_is_the_score() -> None:
    candidate = candidate_at(0.7)
    whole = judge(Rule(id="r", metric=SCORE, min=0.5), candidate)
    mean = judge(rule(min=0.5, reduce="mean"), candidate)
    assert (mean.value, mean.low, mean.high) == pytest.approx((whole.value, whole.low, whole.high))


def test_a_margin_is_held_on_every_slice_against_the_champions() -> None:
    champion = candidate_at(0.95, seed=2)
    lost = judge(rule(champion_margin=0.1), with_task_wrong("counting"), champion)
    assert (lost.status, lost.slice, lost.kind) == ("FAIL", "counting", "margin")
    assert lost.champion is not None
    assert lost.value == pytest.approx(0.0 - lost.champion)
    assert judge(rule(champion_margin=0.0), champion, champion).status == "PASS"


def test_groups_across_tasks_and_inside_one_task() -> None:
    whole = judge(rule(slices=["even", "odd"], min=0.1), candidate_at(0.7))
    inside = judge(rule(slices=["odd"], metric="candidate.nfe1.tasks.colors", min=0.1), candidate_at(0.7))
    assert sum(each.prompts for each in whole.slices) == 96
    assert inside.slices[0].prompts == 8


def test_a_ratio_by_slice_is_the_slice_of_both_models() -> None:
    measured = measurements(sample_table({KEY: 0.5, MANY: 1.5}))
    outcome = judge(rule(slices=["odd"], metric="ratio.score_nfe1", min=0.1), measured)
    rows = list(measured.scores[KEY].grouped(["odd"]).correct)
    assert outcome.value == pytest.approx(sum(rows) / (48 * 4))


def test_more_slices_ask_for_more_to_fail_and_no_more_to_pass() -> None:
    outcome = judge(rule(min=0.5), candidate_at(0.7))
    (decided,) = [each for each in outcome.slices if each.name == outcome.slice]
    assert outcome.low == decided.low
    assert (outcome.high or 0.0) > (decided.high or 1.0)
    alone = judge(rule(slices=[decided.name], min=0.5), candidate_at(0.7))
    assert (alone.low, alone.high) == (decided.low, decided.high)


@pytest.mark.parametrize("slices", [["even", "missing"], ["missing"]])
def test_a_slice_without_images_is_an_error(slices: list[str]) -> None:
    for fields in ({"min": 0.0}, {"champion_margin": 1.0}, {"min": 0.0, "decide_on": "value"}):
        outcome = judge(rule(slices=slices, **fields), candidate_at(0.9), candidate_at(0.9))
        assert outcome.status == "ERROR"
        assert "missing" in outcome.reason


def test_an_image_without_a_verdict_is_an_error_in_its_slice_too() -> None:
    table = sample_table({KEY: 1.0})
    rows = table.to_pylist()
    rows[0]["correct"] = None
    broken = Measurements(measurements(table).metrics, measurements(pa.Table.from_pylist(rows)).scores)
    assert judge(rule(min=0.0), broken).status == "ERROR"
