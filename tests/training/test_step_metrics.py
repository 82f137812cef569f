"""Metrics of a step's parts as those of the step: means go by rows, and what has no row says nothing."""

import math

from twinflow_core.training.roles import Role
from twinflow_core.training.step_metrics import StepMetrics, joined_metrics


def rows(one_step: int = 0, near: int = 0, fake: int = 0) -> dict[Role, float]:
    return {"one_step": one_step, "near": near, "any": 0, "fake": fake}


def test_a_mean_goes_by_the_rows_of_its_role_and_the_loss_adds_up() -> None:
    first = StepMetrics({"loss": 1.0, "loss_fake": 1.0, "loss_near": 5.0}, rows(near=7, fake=3))
    second = StepMetrics({"loss": 2.0, "loss_fake": 5.0, "loss_near": math.nan}, rows(fake=1))
    joined = joined_metrics([first, second])
    assert joined.values == {"loss": 3.0, "loss_fake": 2.0, "loss_near": 5.0}
    assert joined.rows == rows(near=7, fake=4)


def test_a_metric_that_a_part_lacks_is_that_of_the_others() -> None:
    parts = [
        StepMetrics({"loss": 1.0}, rows(fake=2)),
        StepMetrics({"loss": 2.0, "rectify": 3.0}, rows(one_step=2)),
    ]
    assert joined_metrics(parts).values == {"loss": 3.0, "rectify": 3.0}


def test_rows_that_are_not_a_number_are_not_hidden_by_others() -> None:
    parts = [StepMetrics({"loss": 1.0, "loss_near": value}, rows(near=1)) for value in (2.0, math.nan)]
    assert math.isnan(joined_metrics(parts).values["loss_near"])
