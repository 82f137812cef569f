"""Whatever stands where a number should be, no rule of any form passes on it."""

from __future__ import annotations

import copy
import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gates.measured import candidate_at, measurements, sample_table
from twinflow_core.gates.evidence import Evidence, Measurements
from twinflow_core.gates.looks import judge_in_looks
from twinflow_core.gates.samples import prompt_scores
from twinflow_core.params import Rule

SCORE = "candidate.nfe1.score"
GOOD = candidate_at(0.9, prompts_per_task=3)
FORMS: list[dict[str, Any]] = [
    {"min": -1e300},
    {"max": 1e300},
    {"min": -1e300, "max": 1e300},
    {"min": -1e300, "decide_on": "value"},
    {"champion_margin": 1e300},
    {"champion_margin": 1e300, "better": "lower"},
    {"min": -1e300, "slices": ["counting", "colors"]},
    {"min": -1e300, "slices": ["even"], "reduce": "mean"},
    {"champion_margin": 1e300, "slices": ["odd", "even"]},
]
RULES = [Rule.model_validate({"id": f"r{i}", "metric": SCORE, **form}) for i, form in enumerate(FORMS)]

json_values = st.recursive(
    st.none() | st.booleans() | st.text(max_size=8) | st.floats() | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def statuses(candidate: Measurements, champion: Measurements | None) -> set[str]:
    outcomes = judge_in_looks(
        RULES, Evidence(candidate, champion), None, resamples=400, seed=0, on_no_champion="promote"
    )
    return {outcome.status for outcome in outcomes}


def with_score(value: object) -> Measurements:
    metrics: Any = copy.deepcopy(GOOD.metrics)
    metrics["candidate"]["nfe1"]["score"] = value
    return Measurements(metrics, GOOD.scores)


def test_the_same_rules_pass_on_a_number_that_its_images_bear_out() -> None:
    assert statuses(GOOD, GOOD) == {"PASS"}


@settings(max_examples=60, deadline=None)
@given(json_values)
def test_not_the_number_that_the_images_give(value: object) -> None:
    true = GOOD.metrics["candidate"]["nfe1"]["score"]
    number = not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)
    if number and abs(value - true) <= 1e-3:  # type: ignore[operator]
        return
    assert statuses(with_score(value), GOOD) == {"ERROR"}
    assert statuses(with_score(value), None) == {"ERROR"}


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(["candidate", "ratio", "scorer", "x"]), json_values))
def test_a_document_of_any_shape(document: dict[str, Any]) -> None:
    assert statuses(Measurements(document, GOOD.scores), GOOD) == {"ERROR"}
    assert statuses(Measurements(document), None) == {"ERROR"}
    assert "PASS" not in {
        each.status
        for each in judge_in_looks(
            [rule for rule in RULES if rule.champion_margin is not None],
            Evidence(GOOD, Measurements(document, GOOD.scores)),
            None,
            resamples=400,
            seed=0,
            on_no_champion="promote",
        )
    }


@pytest.mark.parametrize("correct", [None, math.nan, math.inf, -math.inf])
def test_an_image_without_a_verdict(correct: float | None) -> None:
    rows = sample_table({("candidate", "nfe1"): 0.9}, prompts_per_task=3).to_pylist()
    rows[5]["correct"] = correct
    broken = Measurements(GOOD.metrics, prompt_scores(pa.Table.from_pylist(rows)))
    assert statuses(broken, GOOD) == {"ERROR"}


def test_no_images_at_all() -> None:
    empty = sample_table({("candidate", "nfe1"): 0.9}, prompts_per_task=3).slice(0, 0)
    assert statuses(Measurements(GOOD.metrics, prompt_scores(empty)), GOOD) == {"ERROR"}
    rules = [Rule(id="v", metric=SCORE, min=0.0)]
    (outcome,) = judge_in_looks(
        rules, Evidence(measurements_without_images()), None, resamples=400, seed=0, on_no_champion="promote"
    )
    assert outcome.status == "ERROR"


def measurements_without_images() -> Measurements:
    return Measurements(measurements(sample_table({("candidate", "nfe1"): 0.9}, prompts_per_task=3)).metrics)
