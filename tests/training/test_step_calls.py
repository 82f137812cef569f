"""What a row of each role costs, against the calls that are counted on a real, tiny SD3."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.objectives.cost import RowCounter
from tests.training.test_loop import STEPS, data_of
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.training.loop import Resume, Training
from twinflow_core.training.step_calls import row_costs

BASE: dict[str, Any] = {"real_velocity": "base"}
OWN: dict[str, Any] = {**BASE, "fake_velocity": "own"}


@pytest.mark.parametrize(
    "changed",
    [
        {},
        BASE,
        {**OWN, "one_step_target": "rectified"},
        {"near_target": "velocity", "order": 3},
        {"guidance": 0.0},
        {**BASE, "data_free": True},
        {"objective": "rcgm"},
        {"objective": "flow_matching"},
        {"objective": "meanflow"},
        {"objective": "vsd"},
    ],
)
def test_costs_of_the_rows_add_up_to_those_of_a_step(
    changed: dict[str, Any], tiny_pipeline: Path, tmp_path: Path
) -> None:
    options = FinetuneParams.model_validate({**STEPS.model_dump(), "batch_size": 9, **changed})
    backbone = load_backbone(tiny_pipeline)
    training = Training(backbone.velocity, data_of(backbone), options, Resume(tmp_path, "k"))
    networks = [training.online, training.averaged, training.base, training.fake_score]
    (rows,) = training.rows(0)
    with RowCounter().attached([each for each in networks if each is not None]) as counter:
        training.objective.loss(training.networks, rows, options.steps)
    costs = row_costs(options)
    assert sum(cost * getattr(rows.counts, role) for role, cost in costs.items()) == counter.equivalents
    assert set(costs) == set(training.objective.roles)
