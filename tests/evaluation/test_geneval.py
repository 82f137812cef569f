"""GenEval's rules, by cases worked out by hand and by properties."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from twinflow_core.errors import TwinflowError
from twinflow_core.evaluation.detections import Detection
from twinflow_core.evaluation.geneval import aggregate, evaluate, kept_detections, relations


def found(
    cls: str, x: float = 0, y: float = 0, side: float = 10, score: float = 1.0, color: str | None = None
) -> Detection:
    return Detection(cls, score, (x, y, x + side, y + side), None, color)


def record(tag: str, *include: dict[str, Any], exclude: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"tag": tag, "include": list(include), "exclude": exclude or [], "prompt": tag}


def test_thresholds_are_strict_and_higher_for_counting() -> None:
    scores = (0.3, 0.31, 0.9, 0.91)
    things = [found("circle", score=score) for score in scores]
    assert [d.score for d in kept_detections(things, "colors")["circle"]] == [0.91, 0.9, 0.31]
    assert [d.score for d in kept_detections(things, "counting")["circle"]] == [0.91]


def test_at_most_sixteen_of_a_class_count() -> None:
    assert len(kept_detections([found("circle") for _ in range(20)], "colors")["circle"]) == 16


def test_more_than_asked_is_right_unless_excluded() -> None:
    three = [found("circle") for _ in range(3)]
    two = {"class": "circle", "count": 2}
    assert evaluate(three, record("counting", two)).correct
    verdict = evaluate(three, record("counting", two, exclude=[{"class": "circle", "count": 3}]))
    assert not verdict.correct
    assert "expected circle < 3, found 3" in verdict.reason


def test_other_classes_do_not_matter() -> None:
    assert evaluate(
        [found("circle"), found("square")], record("single_object", {"class": "circle", "count": 1})
    ).correct


def test_only_the_best_detection_is_asked_for_its_colour() -> None:
    asked = record("colors", {"class": "circle", "count": 1, "color": "red"})
    red, blue = found("circle", score=0.8, color="red"), found("circle", score=0.9, color="blue")
    assert not evaluate([red, blue], asked).correct
    assert evaluate([red], asked).correct


def test_colour_attribution_needs_both_objects() -> None:
    asked = record(
        "color_attr",
        {"class": "circle", "count": 1, "color": "red"},
        {"class": "square", "count": 1, "color": "blue"},
    )
    circle, square = found("circle", color="red"), found("square", color="blue")
    assert evaluate([circle, square], asked).correct
    assert not evaluate([circle], asked).correct
    swapped = [found("circle", color="blue"), found("square", color="red")]
    assert not evaluate(swapped, asked).correct


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (-20, 0, {"left of"}),
        (20, 0, {"right of"}),
        (0, -20, {"above"}),
        (0, 20, {"below"}),
        # |offset| 1.9 is less than the slack of 0.1 (10 + 10).
        (1.9, 0, set()),
        (20, 20, {"right of", "below"}),
        # dx = (4 - 2) / 20.4 is under a half.
        (4, 20, {"below"}),
    ],
)
def test_relations_of_ten_pixel_boxes(x: float, y: float, expected: set[str]) -> None:
    assert relations(found("circle", x, y), found("square")) == expected


@given(*(st.floats(-30, 30) for _ in range(2)), *(st.floats(1, 15) for _ in range(2)))
def test_relations_are_antisymmetric(x: float, y: float, a: float, b: float) -> None:
    assume(abs(x) + abs(y) > 1e-3)
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    one, other = found("circle", x, y, a), found("square", 0, 0, b)
    assert {opposite[name] for name in relations(one, other)} == relations(other, one)


def test_a_position_without_its_target_fails() -> None:
    asked = record(
        "position",
        {"class": "square", "count": 1},
        {"class": "circle", "count": 1, "position": ["left of", 0]},
    )
    circle, square = found("circle", 0, 0), found("square", 20, 0)
    assert evaluate([circle, square], asked).correct
    assert "no target" in evaluate([circle], asked).reason
    assert not evaluate([found("circle", 20, 0), found("square", 0, 0)], asked).correct


def test_overall_is_the_unweighted_mean_of_the_tasks() -> None:
    single, colors = record("single_object"), record("colors")
    score = aggregate([(single, True), (single, True), (single, False), (colors, False)])
    assert score.tasks == {"single_object": pytest.approx(2 / 3), "colors": 0.0}
    assert score.overall == pytest.approx(1 / 3)
    assert score.images == pytest.approx(0.5)
    assert score.prompts == pytest.approx(0.5)


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(TwinflowError, match="nothing to score"):
        aggregate([])
