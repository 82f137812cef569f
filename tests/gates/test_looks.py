"""The second look: only where a required rule is open, on more images, and at the price of half the error."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gates.measured import candidate_at, measurements, sample_table
from twinflow_core.gates.estimates import few_step_setting
from twinflow_core.gates.evidence import Evidence
from twinflow_core.gates.looks import judge_in_looks
from twinflow_core.params import Rule

SCORE = "candidate.nfe1.score"
OPTIONS: dict[str, Any] = {"resamples": 1000, "seed": 3, "on_no_champion": "reject"}
MARGIN = Rule(id="margin", metric=SCORE, champion_margin=0.03)
SMALL = Evidence(candidate_at(0.7, prompts_per_task=4), candidate_at(0.7, prompts_per_task=4, seed=5))


def large(rate: float) -> Evidence:
    """Many more images than SMALL has; the champion is right on about 0.7 of them."""
    design = {"prompts_per_task": 64, "images_per_prompt": 16}
    return Evidence(candidate_at(rate, seed=8, **design), candidate_at(0.7, seed=9, **design))


@pytest.mark.parametrize(("rate", "status"), [(0.72, "PASS"), (0.55, "FAIL")])
def test_what_few_images_leave_open_more_images_settle(rate: float, status: str) -> None:
    asked: list[tuple[str, ...]] = []

    def draw_more(settings: tuple[str, ...]) -> Evidence:
        asked.append(settings)
        return large(rate)

    (outcome,) = judge_in_looks([MARGIN], SMALL, draw_more, **OPTIONS)
    assert asked == [("nfe1",)]
    assert (outcome.status, outcome.look, outcome.images) == (status, 2, 6 * 64 * 16)
    assert outcome.level == pytest.approx(0.975)


def never(_settings: tuple[str, ...]) -> Evidence:
    raise AssertionError("no more images are needed")


def test_nothing_more_is_drawn_where_it_would_change_nothing() -> None:
    clear = Rule(id="clear", metric=SCORE, min=0.1)
    lost = Rule(id="lost", metric=SCORE, min=0.99)
    warn = MARGIN.model_copy(update={"severity": "warn"})
    ratio = Rule(id="ratio", metric="ratio.score_nfe1", min=0.78)
    reference = {("candidate", "nfe1"): 0.7, ("reference", "many"): 0.9}
    with_reference = Evidence(measurements(sample_table(reference, prompts_per_task=4)))
    assert judge_in_looks([clear], SMALL, never, **OPTIONS)[0].status == "PASS"
    assert [each.status for each in judge_in_looks([lost, MARGIN], SMALL, never, **OPTIONS)] == [
        "FAIL",
        "INCONCLUSIVE",
    ]
    assert judge_in_looks([clear, warn], SMALL, never, **OPTIONS)[1].status == "INCONCLUSIVE"
    (once,) = judge_in_looks([ratio], with_reference, never, **OPTIONS)
    assert (once.status, once.level) == ("INCONCLUSIVE", 0.95)
    assert judge_in_looks([MARGIN], Evidence(SMALL.candidate), never, **OPTIONS)[0].decided_by == "policy"


def test_what_the_first_look_settled_stays_and_holms_family_stays_whole() -> None:
    wide = Rule(id="wide", metric=SCORE, champion_margin=0.4)
    first, second = judge_in_looks([wide, MARGIN], SMALL, lambda _: large(0.7), **OPTIONS)
    assert (first.look, first.images) == (1, 6 * 4 * 4)
    assert (second.look, second.level) == (2, pytest.approx(0.975))


def test_without_more_to_draw_the_one_look_has_all_of_the_error() -> None:
    (outcome,) = judge_in_looks([MARGIN], SMALL, None, **OPTIONS)
    assert (outcome.level, outcome.look) == (0.95, 1)


def test_only_few_steps_of_the_candidate_are_cheap() -> None:
    assert few_step_setting(SCORE) == "nfe1"
    assert few_step_setting("candidate.nfe2.tasks.colors") == "nfe2"
    for metric in ("candidate.many.score", "ratio.score_nfe1", "reference.score", "serving.score", "x.y"):
        assert few_step_setting(metric) is None
