"""What a metric means in terms of images, and what gives it no interval."""

from __future__ import annotations

import time

import pyarrow as pa
import pytest

from tests.gates.measured import candidate_at, measurements, sample_table, score
from twinflow_core.gates.estimates import Estimand, NoEstimateError, Resampling, estimand_of
from twinflow_core.gates.evidence import Evidence
from twinflow_core.gates.metrics import TASKS
from twinflow_core.gates.rules import evaluate_rules
from twinflow_core.gates.samples import prompt_scores
from twinflow_core.params import Rule

KEY, MANY = ("candidate", "nfe1"), ("reference", "many")


@pytest.mark.parametrize(
    ("metric", "estimand"),
    [
        ("candidate.nfe2.score", Estimand(("candidate", "nfe2"))),
        ("candidate.many.tasks.colors", Estimand(("candidate", "many"), "colors")),
        ("reference.score", Estimand(MANY)),
        ("reference.tasks.position", Estimand(MANY, "position")),
        ("reference.nfe1.score", Estimand(("reference", "nfe1"))),
        ("ratio.score_nfe4", Estimand(("candidate", "nfe4"), None, "ratio", MANY)),
        ("serving.score_difference", Estimand(("served", "nfe1"), None, "difference", KEY)),
        ("candidate.nfe1.diversity", None),
        ("ratio.diversity_nfe1", None),
        ("parity.max_abs", None),
    ],
)
def test_what_a_metric_is_made_of(metric: str, estimand: Estimand | None) -> None:
    assert estimand_of(metric) == estimand


def test_values_are_those_of_plain_python() -> None:
    scores = prompt_scores(sample_table({KEY: 0.6, MANY: 0.9}, prompts_per_task=4))
    resampling = Resampling(200, seed=0)
    one, other = score(scores[KEY]), score(scores[MANY])
    assert resampling.score(scores[KEY], None).value == pytest.approx(one)
    assert resampling.difference(scores[KEY], scores[MANY], None).value == pytest.approx(one - other)
    ratio = resampling.of(Estimand(KEY, None, "ratio", MANY), scores)
    assert ratio.value == pytest.approx(one / other)
    assert ratio.draws.shape == (200,)
    assert ratio.images == 96


def test_what_gives_no_interval_says_why() -> None:
    scores = prompt_scores(sample_table({KEY: 0.6}, prompts_per_task=4))
    nothing_right = prompt_scores(sample_table({KEY: -1.0}, prompts_per_task=4))[KEY]
    resampling = Resampling(50, seed=0)
    with pytest.raises(NoEstimateError, match="no images of reference at many"):
        resampling.of(Estimand(KEY, None, "ratio", MANY), scores)
    with pytest.raises(NoEstimateError, match="belongs to task dancing"):
        resampling.score(scores[KEY], "dancing")
    with pytest.raises(NoEstimateError, match="may be, 0"):
        resampling.ratio(scores[KEY], nothing_right, None)
    unjudged = [{**row, "correct": None} for row in sample_table({KEY: 0.6}).to_pylist()]
    with pytest.raises(NoEstimateError, match="does not judge"):
        resampling.score(prompt_scores(pa.Table.from_pylist(unjudged))[KEY], None)


def test_twenty_rules_on_a_whole_benchmark_take_under_two_seconds() -> None:
    design = {"prompts_per_task": 92}
    candidate = measurements(sample_table({KEY: 0.8, MANY: 0.9}, **design))
    champion = candidate_at(0.8, seed=1, **design)
    metrics = ["candidate.nfe1.score", *(f"candidate.nfe1.tasks.{task}" for task in TASKS)]
    rules = [Rule(id=f"margin-{metric}", metric=metric, champion_margin=0.05) for metric in metrics]
    rules += [Rule(id=f"min-{metric}", metric=metric, min=0.5) for metric in metrics]
    rules += [Rule(id=f"ratio-{index}", metric="ratio.score_nfe1", min=0.8) for index in range(6)]
    start = time.process_time()
    outcomes = evaluate_rules(
        rules, Evidence(candidate, champion), resamples=10_000, seed=0, on_no_champion="reject"
    )
    assert time.process_time() - start < 2.0
    assert len(outcomes) == 20
    assert all(outcome.low is not None for outcome in outcomes)
