"""Where a rival is scored, and what the table says of the cells."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.objectives.cell import stops
from benchmarks.objectives.report import best_sampler, table
from benchmarks.objectives.rivals import CHANGES, RIVALS, USUAL_BETAS, rival_options
from tests.pipeline_clone import REPOSITORY
from tests.training.test_twinflow_objective import OPTIONS
from twinflow_core.params import load_params


@given(st.integers(1, 40), st.floats(3, 10), st.floats(3, 10))
def test_both_stops_are_checkpoints_and_the_second_costs_what_twinflow_does(
    fifties: int, cost: float, twinflow: float
) -> None:
    steps, every = 50 * fifties, 50
    found = stops(steps, cost, twinflow, every)
    assert found["equal_steps"] == steps
    assert found["equal_cost"] % every == 0
    assert abs(found["equal_cost"] * cost - steps * twinflow) <= every * cost


def test_rivals_differ_from_params_yaml_in_objective_roles_and_momentum_alone() -> None:
    shared = load_params(REPOSITORY / "params.yaml").finetune
    # Momentum of a rival is not that of the bundled recipe, so that a change of it shows here.
    assert list(shared.betas) != USUAL_BETAS
    free = {"objective", "seed", "shares", "decay_steps", "validate_every"}
    for name in RIVALS:
        options = rival_options(name, 5, shared, {})
        assert options.objective == name
        dumped = options.model_dump()
        changed = {key for key, value in shared.model_dump().items() if dumped[key] != value}
        assert changed <= free | (set() if name == "twinflow" else {"betas"})
        assert list(options.betas) == (list(shared.betas) if name == "twinflow" else USUAL_BETAS)
        assert options.shares == (shared.shares if name == "twinflow" else RIVALS[name]["shares"])


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_twinflow_with_its_own_options_changed(name: str) -> None:
    plain, changed = (rival_options(each, 5, OPTIONS, {}).model_dump() for each in ("twinflow", name))
    assert {key for key in plain if plain[key] != changed[key]} <= set(CHANGES[name])


def cell(objective: str, seed: int, score: float) -> dict[str, Any]:
    jumps = {"score": score, "diversity": 0.2, "distribution": 0.9}
    nfe = {"1": {"jumps": jumps, "euler": {**jumps, "score": score / 2}}}
    return {
        "objective": objective,
        "seed": seed,
        "equivalents_a_row": 6.25,
        "images_per_second": 100.0,
        "peak_memory_mib": 10,
        "stops": {"equal_steps": {"steps": 50, "nfe": nfe}, "equal_cost": {"steps": 100, "nfe": nfe}},
    }


def test_the_table_gives_mean_and_spread_of_the_better_sampler() -> None:
    cells = [cell("twinflow", 0, 0.8), cell("twinflow", 1, 0.6), cell("vsd", 0, 0.5)]
    assert best_sampler(cells[0], "equal_steps", 1)["score"] == 0.8
    lines = table(cells, [1]).splitlines()
    assert "| twinflow | 50 | 6.25 | 100 | 10 | 0.700 ±0.141 / 0.200 ±0.000 / 0.900 ±0.000 |" in lines
    assert "| vsd | 100 | 6.25 | 100 | 10 | 0.500 / 0.200 / 0.900 |" in lines
