"""Rules are checked before anything is trained, and every message says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from twinflow_core.errors import TwinflowError
from twinflow_core.gates.checks import at_every_size, check_rules, rules_of
from twinflow_core.image_size import ImageSize
from twinflow_core.params import Params, load_params

REPOSITORY = Path(__file__).parents[2]
SLICED = {"id": "a", "metric": "candidate.nfe1.score", "min": 0}


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(REPOSITORY / "params.yaml")


def with_rules(params: Params, gate: str, rules: list[dict[str, Any]], resamples: int = 2000) -> Params:
    document = params.model_dump()
    lists = document["gates"] if gate == "serving" else document["gates"]["quality"]
    lists[gate] = rules
    document["gates"]["resamples"] = resamples
    return Params.model_validate(document)


def test_the_default_rules_are_in_order(params: Params) -> None:
    check_rules(params)


@pytest.mark.parametrize(
    ("gate", "rules", "message", "fix"),
    [
        (
            "shapes",
            [{"id": "a", "metric": "candidate.nfe1.scor", "min": 0}],
            "no metric",
            "candidate.nfe1.score",
        ),
        ("shapes", [{"id": "a", "metric": "candidate.nfe8.score", "min": 0}], "no metric", "Did you mean"),
        ("shapes", [{"id": "a", "metric": "zzz", "min": 0}], "no metric", "Name one of"),
        ("shapes", [{"id": "a", "metric": "serving.p95_ms", "min": 0}], "quality gate knows no", ""),
        ("distribution", [{"id": "a", "metric": "candidate.nfe1.tasks.colors", "min": 0}], "no metric", ""),
        ("serving", [{"id": "a", "metric": "parity.max_ab", "max": 0}], "no metric", "parity.max_abs"),
        (
            "shapes",
            [{"id": "a", "metric": "reference.score", "min": 0}] * 2,
            "have the id `a`",
            "Rename",
        ),
        ("shapes", [{"id": "a", "metric": "reference.score", "min": 2, "max": 1}], "No value", "Swap"),
        (
            "shapes",
            [{"id": "a", "metric": "candidate.nfe1.score", "min": 0, "champion_margin": 0.1}],
            "not both",
            "two rules",
        ),
        (
            "shapes",
            [{"id": "a", "metric": "candidate.nfe1.diversity", "champion_margin": 0.1}],
            "no interval",
            "candidate.nfe1.score",
        ),
        ("shapes", [{"id": "a", "metric": "reference.score", "champion_margin": 0.1}], "no interval", ""),
        ("shapes", [{"id": "a", "metric": "ratio.score_nfe1", "champion_margin": 0.1}], "no interval", ""),
        ("shapes", [{**SLICED, "slices": ["countin"]}], "a slice `countin`", "counting"),
        ("shapes", [{**SLICED, "slices": ["zzz"]}], "a slice `zzz`", "seen pair"),
        ("shapes", [{**SLICED, "slices": ["counting", "unseen pair"]}], "overlap", "either tasks"),
        ("shapes", [{**SLICED, "slices": ["counting", "counting"]}], "overlap", "once"),
        (
            "shapes",
            [{**SLICED, "metric": "candidate.nfe1.tasks.counting", "slices": ["unseen pair"]}],
            "a slice `unseen pair`",
            "seen pair",
        ),
        (
            "shapes",
            [{"id": "a", "metric": "ratio.diversity_nfe1", "min": 0, "slices": ["counting"]}],
            "no slices",
            "Remove",
        ),
        ("distribution", [{**SLICED, "slices": ["captions"]}], "no slices", "evaluate.scorer"),
    ],
)
def test_names_the_key_and_what_to_do(
    params: Params, gate: str, rules: list[dict[str, Any]], message: str, fix: str
) -> None:
    with pytest.raises(TwinflowError) as caught:
        check_rules(with_rules(params, gate, rules), "params.yaml")
    assert message in caught.value.what
    assert fix in caught.value.fix
    assert caught.value.where.startswith("params.yaml: gates.")
    assert gate in caught.value.where


def test_resamples_must_suffice_for_the_whole_family(params: Params) -> None:
    rules = [
        {"id": f"m{i}", "metric": "candidate.nfe1.score", "champion_margin": 0.1, "confidence": 0.99}
        for i in range(3)
    ]
    with pytest.raises(TwinflowError, match="too few") as caught:
        check_rules(with_rules(params, "shapes", rules, resamples=250))
    least = int(caught.value.fix.split()[-1].rstrip("."))
    check_rules(with_rules(params, "shapes", rules, resamples=least))


def test_a_slice_of_one_prompt_is_refused_before_anything_is_trained(params: Params) -> None:
    document = with_rules(params, "shapes", [{**SLICED, "slices": ["counting"]}]).model_dump()
    check_rules(Params.model_validate(document))
    document["evaluate"]["prompts_per_task"] = 1
    with pytest.raises(TwinflowError, match="one prompt") as caught:
        check_rules(Params.model_validate(document))
    assert "prompts_per_task" in caught.value.fix


def with_size(params: Params) -> Params:
    sizes = (params.data.square, ImageSize(64, 32))
    return params.model_copy(update={"export": params.export.model_copy(update={"sizes": sizes})})


def test_bounds_are_held_at_every_size_unless_it_has_one_of_its_own(params: Params) -> None:
    rules = params.gates.quality.distribution
    found = rules_of(params.gates, "quality", {"scorer": "distribution", "sizes": {"64x32": {}}})
    assert found[: len(rules)] == rules
    assert [(rule.id, rule.metric) for rule in found[len(rules) :]] == [
        ("score-of-base@64x32", "sizes.64x32.ratio.score_nfe1"),
        ("diversity-of-base@64x32", "sizes.64x32.ratio.diversity_nfe1"),
    ]
    own = rules[0].model_copy(update={"id": "wide", "metric": "sizes.64x32.ratio.score_nfe1", "min": 0.1})
    assert [rule.id for rule in at_every_size((*rules[:2], own), ["64x32"])][2:] == [
        "wide",
        "diversity-of-base@64x32",
    ]


def test_rules_may_name_the_sizes_that_are_exported_and_no_other(params: Params) -> None:
    rule = {"id": "a", "metric": "sizes.64x32.candidate.nfe1.score", "min": 0}
    check_rules(with_size(params))
    check_rules(with_size(with_rules(params, "shapes", [rule])))
    with pytest.raises(TwinflowError, match="no metric"):
        check_rules(with_rules(params, "shapes", [rule]))
    margin = {"id": "a", "metric": rule["metric"], "champion_margin": 0.1}
    with pytest.raises(TwinflowError, match="no interval against the champion"):
        check_rules(with_size(with_rules(params, "shapes", [margin])))
    taken = {"id": "a@64x32", "metric": "reference.score", "min": 0}
    with pytest.raises(TwinflowError, match="have the id `a@64x32`"):
        check_rules(with_size(with_rules(params, "shapes", [SLICED, taken])))


def test_rules_follow_the_scorer_of_the_metrics(params: Params) -> None:
    gates = params.gates
    assert rules_of(gates, "quality", {"scorer": "shapes"}) == gates.quality.shapes
    assert rules_of(gates, "quality", {"scorer": "distribution"}) == gates.quality.distribution
    assert rules_of(gates, "serving", {}) == gates.serving
    with pytest.raises(TwinflowError, match="scorer None"):
        rules_of(gates, "quality", {})
