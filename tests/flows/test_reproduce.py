"""When two computations of one run count as the same although their bytes differ."""

from __future__ import annotations

from typing import Any

import pytest

from flows.reproduce import changed_rules

METRICS = {"candidate": {"nfe1": {"score": 0.82}}, "ratio": {"score_nfe1": 0.91}}


def rule(**fields: Any) -> dict[str, Any]:
    metric = {"id": "score", "metric": "candidate.nfe1.score", "kind": "min", "value": 0.8, "bound": 0.5}
    return {**metric, "low": None, "high": None, **fields}


@pytest.mark.parametrize(
    ("recorded", "same"),
    [
        (rule(), True),
        (rule(low=0.75, high=0.85), True),
        (rule(low=0.75, high=0.81), False),
        (rule(bound=0.81), False),
        (rule(kind="max", bound=0.81), False),
        (rule(kind="max", bound=0.9), True),
        (rule(metric="candidate.nfe2.score"), False),
        (rule(metric="serving.p95_ms", bound=1000), True),
        (rule(kind="margin", bound=-0.03), True),
        (rule(value=None), True),
    ],
)
def test_a_rule_comes_out_as_recorded_or_is_named(recorded: dict[str, Any], same: bool) -> None:
    assert (changed_rules([recorded], METRICS) == {}) == same
