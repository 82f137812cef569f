"""The picture of an interval: the bound on the right side, nothing outside the drawing."""

from __future__ import annotations

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from twinflow_core.gates.outcome import RuleOutcome
from twinflow_core.report.interval_picture import WIDTH, interval_picture

numbers = st.floats(-1e6, 1e6)


def outcome(**fields: object) -> RuleOutcome:
    base = {
        "id": "r",
        "metric": "m",
        "severity": "required",
        "status": "PASS",
        "reason": "",
        "decided_by": "point",
    }
    return RuleOutcome.model_validate(base | fields)


def places(svg: str, name: str) -> list[float]:
    return [float(each) for each in re.findall(name + r'="(-?[\d.e+-]+)"', svg)]


@settings(deadline=None)
@example(5e-324, 5e-324, None, "min")
@given(numbers, numbers, st.none() | st.tuples(numbers, numbers), st.sampled_from(["min", "max", "margin"]))
def test_everything_lies_inside(
    value: float, bound: float, interval: tuple[float, float] | None, kind: str
) -> None:
    low, high = sorted(interval) if interval else (None, None)
    svg = str(interval_picture(outcome(kind=kind, value=value, bound=bound, low=low, high=high)))
    for name in ("x", "x1", "x2", "cx"):
        assert all(-0.1 <= place <= WIDTH + 0.1 for place in places(svg, rf"\b{name}"))


def test_a_value_below_a_minimum_lies_left_of_the_bound() -> None:
    svg = str(interval_picture(outcome(kind="min", value=0.5, bound=0.8)))
    assert places(svg, r"\bcx")[0] < places(svg, r"\bx1")[0]


def test_nothing_is_drawn_without_a_value() -> None:
    assert interval_picture(outcome(kind="min", bound=0.8)) == ""
