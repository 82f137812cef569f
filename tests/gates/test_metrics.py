"""The metrics document: what is not one finite number is never a number."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinflow_core.data import shapes_world
from twinflow_core.gates.metrics import (
    TASKS,
    UnusableMetricError,
    known_metrics,
    merged_metrics,
    metric_value,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.text() | st.sampled_from([float("nan"), float("inf"), -float("inf")]),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**9), 10**9))
def test_finds_a_number_at_a_dotted_path(number: float) -> None:
    assert metric_value({"candidate": {"nfe1": {"score": number}}}, "candidate.nfe1.score") == number


@given(json_values)
def test_nothing_but_a_finite_number_is_one(value: object) -> None:
    with pytest.raises(UnusableMetricError):
        metric_value({"ratio": {"score_nfe1": value}}, "ratio.score_nfe1")


def test_a_number_too_large_for_a_float_is_not_finite() -> None:
    with pytest.raises(UnusableMetricError, match="inf"):
        metric_value({"x": 10**400}, "x")


def test_what_json_reads_as_nan_is_caught() -> None:
    with pytest.raises(UnusableMetricError, match="nan"):
        metric_value(json.loads('{"score": NaN}'), "score")


def test_numpy_numbers_count() -> None:
    assert metric_value({"x": np.float32(0.5)}, "x") == 0.5


def test_a_missing_metric_says_where_the_path_ends() -> None:
    with pytest.raises(UnusableMetricError, match="`candidate` holds no `nfe2`"):
        metric_value({"candidate": {"nfe1": {}}}, "candidate.nfe2.score")


def test_merges_what_is_there() -> None:
    assert merged_metrics({"ratio": {}}, serving={"finite": 1}) == {"ratio": {}, "serving": {"finite": 1}}
    with pytest.raises(ValueError, match="parity"):
        merged_metrics({"parity": {"max_abs": 0}})


def test_known_metrics_follow_gate_scorer_and_steps() -> None:
    shapes = known_metrics("quality", "shapes", (1, 2))
    assert {"candidate.nfe2.tasks.counting", "ratio.diversity_nfe2", "candidate.many.score"} <= set(shapes)
    assert "candidate.nfe4.score" not in shapes
    assert not [path for path in shapes if path.startswith(("serving", "parity"))]
    assert not [path for path in known_metrics("quality", "distribution", (1,)) if ".tasks." in path]
    assert {"parity.max_abs", "serving.p95_ms"} <= set(known_metrics("serving", "shapes", (1,)))


def test_tasks_are_those_of_the_shapes_world() -> None:
    assert set(TASKS) == set(shapes_world.TASKS)
